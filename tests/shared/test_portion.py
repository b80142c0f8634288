"""Many requests as few bytes."""

from __future__ import annotations

import pytest

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.library import script
from scrapy_distributed.shared.portion import bodies_of, pack, unpack
from scrapy_distributed.shared.run_rules import RunRules

BODIES = [f'"http://a/{number}"' for number in range(5)]


def test_requests_come_out_as_they_went_in() -> None:
    assert unpack(pack(BODIES)) == BODIES
    assert unpack(b"p" + "\n".join(BODIES).encode()) == BODIES


def test_a_batch_is_made_of_parts_of_portions() -> None:
    assert bodies_of([b"1:3:2", b"2:0:1"], [pack(BODIES), pack(BODIES)]) == [*BODIES[3:], BODIES[0]]
    assert bodies_of([b"1:0:1", b"1:3:2", b"2:0:1"], [pack(BODIES), b"", pack(BODIES)]) == [
        BODIES[0], *BODIES[3:], BODIES[0],
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"x", b"zabc", pack(BODIES)[:-3], b"p\xff"])
def test_what_is_damaged_is_told_so(data: bytes) -> None:
    with pytest.raises(LedgerUnavailableError, match="damaged: requests of a batch"):
        unpack(data)


def test_rules_of_a_run_come_out_as_they_went_in() -> None:
    rules = RunRules(max_attempts=5, lease_seconds=1.5, stall_seconds=2, retry_failed=("dns", "http 5*"))
    assert RunRules.from_text(rules.as_text()) == rules


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"max_attempts": 3, "retry_failed": 3}', '{"retry_failed": []}'])
def test_rules_that_are_damaged_are_told_so(text: str) -> None:
    with pytest.raises(LedgerError, match="damaged: rules of a run"):
        RunRules.from_text(text)


def test_all_keys_of_a_project_have_one_hash_tag() -> None:
    keys = Keys("shop")
    assert keys.of("run", "batch", 3) == "{sd:shop}:run:batch:3"
    assert {keys.runs.partition("}")[0], keys.events.partition("}")[0], keys.all.partition("}")[0]} == {"{sd:shop"}


def test_a_script_is_sent_with_what_it_needs_of_others() -> None:
    text = script("settle").text
    assert text.count("local function over(") == text.count("local function apply(") == 1
    assert "local function apply(" not in script("walk").text
