"""What many jobs report comes in few names, whatever one of their nodes makes up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, receipt

from scrapy_distributed.ledger import sums
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sums import (
    MOST_REASONS,
    MOST_STATS,
    OTHER,
    sum_of_reasons,
    sum_of_stats,
)
from scrapy_distributed.wire.receipt import MAX_REASONS, MAX_STATS


def made_up(jobs: range, names: int) -> Iterator[dict[str, int]]:
    """Names that no two of *jobs* share."""
    for job in jobs:
        yield {f"{job}/{number}": 1 for number in range(names)}


def test_sums_and_maxima_and_no_rates() -> None:
    each = [{"a": 1, "memusage/x": 5, "depth_max": 2, "b_per_minute": 9}, {"a": 2.5, "memusage/x": 4, "depth_max": 3}]
    assert sum_of_stats(each) == ({"a": 3.5, "memusage/x": 5, "depth_max": 3}, 0)
    assert sum_of_stats([]) == ({}, 0)
    assert sum_of_reasons([{"timeout": 1}, {"timeout": 2, "http 404": 1}]) == {"timeout": 3, "http 404": 1}
    assert sum_of_reasons([]) == {}


@pytest.mark.parametrize("held", [sums.HELD, 7000])
def test_made_up_stats_leave_those_of_honest_jobs(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    """A node that lies is first and last."""
    monkeypatch.setattr(sums, "HELD", held)
    honest = [{"pages": 10, "max": number} for number in range(3)]
    found, left_out = sum_of_stats([*made_up(range(1), MAX_STATS), *honest, *made_up(range(1, 21), MAX_STATS)])
    assert len(found) == MOST_STATS
    assert (found["pages"], found["max"]) == (30, 2)
    assert left_out == 21 * MAX_STATS - (MOST_STATS - 2)
    again, _ = sum_of_stats([*made_up(range(1), MAX_STATS), *honest, *made_up(range(1, 21), MAX_STATS)])
    assert list(again.items()) == list(found.items())


@pytest.mark.parametrize("held", [sums.HELD, 1500])
def test_made_up_reasons_are_told_as_others_and_none_is_lost(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(sums, "HELD", held)
    honest = [{"timeout": 3}, {"timeout": 2, "http 404": 2}]
    found = sum_of_reasons([*made_up(range(1), MAX_REASONS), *honest, *made_up(range(1, 41), MAX_REASONS)])
    assert len(found) == MOST_REASONS + 1
    assert (found["timeout"], found["http 404"]) == (5, 2)
    assert sum(found.values()) == 41 * MAX_REASONS + 7
    assert found[OTHER] == 41 * MAX_REASONS - (MOST_REASONS - 2)


def test_as_many_as_are_shown_are_all_shown() -> None:
    assert sum_of_stats(made_up(range(2), MOST_STATS // 2))[1] == 0
    assert OTHER not in sum_of_reasons(made_up(range(2), MOST_REASONS // 2))


def test_a_ledger_with_forged_receipts_tells_few_names(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for number, names in enumerate(made_up(range(3), MAX_REASONS)):
            attempt = a_batch(ledger, number)
            ledger.verdicts.settle(attempt, receipt(attempt, stats=names, followed=names), max_attempts=1)
        ledger.intake.lost_own(next(made_up(range(1), MAX_REASONS)))
        stats, left_out = ledger.account.worker_stats()
        assert (len(stats), left_out) == (MOST_STATS, 3 * MAX_REASONS - MOST_STATS)
        losses = ledger.account.losses()
    for reasons, number in ((losses.followed, 3 * MAX_REASONS), (losses.own, MAX_REASONS)):
        assert (len(reasons), sum(reasons.values())) == (MOST_REASONS + 1, number)
    assert all("other reasons: " in line for line in losses.lines())
