"""Why a crawl closes, and what follows for its run."""

from __future__ import annotations

import pytest

from scrapy_distributed.coordinator.closing import Closing, Means, meaning, of_a_job


@pytest.mark.parametrize(
    ("reason", "idle", "means"),
    [
        ("finished", True, Means.SETTLE),
        ("finished", False, Means.STOP),  # a spider may say so with much left to crawl
        ("closespider_pagecount", False, Means.SETTLE),
        ("closespider_itemcount", True, Means.STOP),
        ("cancelled", True, Means.STOP),
        ("seen enough", True, Means.STOP),
        ("shutdown", False, Means.PAUSE),
        ("memusage_exceeded", False, Means.PAUSE),
        ("fleet_unusable", True, Means.PAUSE),
        ("no_job_starts", False, Means.PAUSE),
        ("superseded", True, Means.PAUSE),
    ],
)
def test_what_a_reason_means(reason: str, idle: bool, means: Means) -> None:
    assert meaning(reason, idle=idle) is means


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["shutdown", "seen enough"], "shutdown"),
        (["seen enough", "shutdown"], "seen enough"),
        (["finished", "finished"], "finished"),
        (["closespider_pagecount", "closespider_timeout"], "closespider_timeout"),
        (["closespider_pagecount", "finished"], "closespider_pagecount"),
        (["finished", "ledger_failed"], "ledger_failed"),
        (["closespider_pagecount", "shutdown", "seen enough"], "shutdown"),
        ([None], "cancelled"),
        ([ValueError("no quota")], "no quota"),
    ],
)
def test_the_first_reason_counts_unless_what_was_found_is_still_crawled(asked: list[object], reason: str) -> None:
    closing = Closing()
    assert not closing.begun
    for one in asked:
        closing.asked(one, idle=True)
    assert (closing.reason, closing.begun) == (reason, True)


def test_the_run_may_be_given_more_as_long_as_what_was_found_is_crawled() -> None:
    closing = Closing()
    assert closing.takes_more
    closing.asked("closespider_pagecount", idle=False)
    assert closing.takes_more
    closing.lands = True
    assert not closing.takes_more
    for reason in ("closespider_itemcount", "shutdown"):
        early = Closing()
        early.asked(reason, idle=False)
        assert not early.takes_more


@pytest.mark.parametrize(
    ("said", "reason"),
    [("seen enough", "seen enough"), ("finished", "closed_itself"), ("shutdown", "closed_itself"),
     ("closespider_pagecount", "closed_itself")],
)  # fmt: skip
def test_a_spider_that_closes_itself_in_a_job_says_nothing_of_this_process(said: str, reason: str) -> None:
    assert of_a_job(said) == reason
    assert meaning(of_a_job(said), idle=True) is Means.STOP
