"""Names of batches, attempts and jobs."""

from __future__ import annotations

import re

from scrapy_distributed.ledger.states import Attempt, AttemptState, label, new_token


def test_the_label_of_a_batch_tells_the_attempt() -> None:
    assert [label(12, 1), label(12, 2)] == ["12", "12.2"]


def test_a_job_id_is_sortable_and_safe_as_a_file_name() -> None:
    def job(batch: int, number: int, token: str = "0a1b2c3d") -> str:
        return Attempt(
            run="20260101T000000-ab12", batch=batch, number=number, token=token, node="n", state=AttemptState.BOUND,
            positions=0b101,
        ).job  # fmt: skip

    jobs = [job(9, 1, "f" * 8), job(9, 2), job(10, 1), job(123_456, 1)]
    assert jobs[1] == "20260101T000000-ab12-000009-2-0a1b2c3d"
    assert jobs == sorted(jobs)


def test_no_two_tokens_are_the_same_and_each_is_safe_in_a_file_name() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(re.fullmatch("[0-9a-f]{8}", token) for token in tokens)
