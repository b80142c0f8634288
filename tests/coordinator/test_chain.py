"""When batches are the links of a chain."""

from __future__ import annotations

import pytest

from scrapy_distributed.coordinator.chain import Chain


def told(*jobs: tuple[int, bool, bool], follows: bool = False) -> list[bool]:
    """*jobs*: requests, found, alone."""
    chain = Chain(follows=follows)
    return [chain.job_ended(size, found=found, alone=alone) for size, found, alone in jobs]


def test_the_third_link_in_a_row_is_told_and_no_other() -> None:
    assert told(*[(1, True, True)] * 7) == [False, False, True, False, False, False, False]


def test_pages_that_bring_as_many_others_each_are_a_chain() -> None:
    assert told((1, True, True), (21, True, True), (20, True, True), (22, True, True))[-1]


@pytest.mark.parametrize(
    "between", [(1, False, True), (1, True, False)], ids=["nothing was found", "others are under way"]
)
def test_what_comes_between_makes_it_begin_anew(between: tuple[int, bool, bool]) -> None:
    link = (1, True, True)
    assert not any(told(link, link, between, link, link))
    assert told(link, link, between, link, link, link)[-1]


def test_a_site_that_begins_to_spread_is_no_chain() -> None:
    assert not any(told((1, True, True), (3, True, True), (9, True, True), (27, True, True), (81, True, True)))


def test_where_workers_follow_there_is_none() -> None:
    assert not any(told(*[(1, True, True)] * 7, follows=True))
