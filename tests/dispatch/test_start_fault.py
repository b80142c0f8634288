"""When it is certain that no job of a run can start."""

from __future__ import annotations

import pytest

from scrapy_distributed.dispatch.start_fault import StartFault

WELL = ("n0", "n1")


def told(*deaths: tuple[str, int, str]) -> StartFault:
    fault = StartFault()
    for node, batch, words in deaths:
        fault.died(node, batch, words)
    return fault


@pytest.mark.parametrize(
    ("deaths", "well", "certain"),
    [
        ([], WELL, False),
        ([("n0", 1, "x"), ("n1", 2, "x")], WELL, True),
        ([("n0", 1, "x"), ("n1", 1, "x")], WELL, True),
        ([("n0", 1, "x"), ("n0", 2, "x"), ("n0", 3, "x")], WELL, False),  # the other one has not had its turn
        ([("n0", 1, "x"), ("n0", 2, "x"), ("n0", 3, "x")], ("n0",), False),  # the other one is away, and may be well
        ([("n0", 1, "x"), ("n0", 2, "x"), ("n0", 3, "x")], (), False),  # the first one is in doubt by now
        ([("n0", 1, "x"), ("n1", 2, "x")], (), True),  # both are in doubt by now
        ([("n0", 1, "x"), ("n1", 2, "y")], WELL, False),
        ([("n0", 1, "x"), ("n1", 2, "")], WELL, False),
        ([("n0", 1, ""), ("n0", 1, "x"), ("n1", 2, "x")], WELL, False),
    ],
)
def test_each_node_has_had_its_turn_and_all_have_died_of_the_same(
    deaths: list[tuple[str, int, str]], well: tuple[str, ...], certain: bool
) -> None:
    assert told(*deaths).is_certain(WELL, well) == certain


@pytest.mark.parametrize(
    ("batches", "certain"),
    [((1, 1), False), ((1, 2), True), ((1, 1, 1), True)],  # there may be no other batch
)
def test_on_the_only_node_it_takes_two_batches_or_three_jobs(batches: tuple[int, ...], certain: bool) -> None:
    assert told(*(("n0", batch, "x") for batch in batches)).is_certain(["n0"], ["n0"]) == certain


def test_a_job_that_has_done_something_rules_it_out() -> None:
    fault = told(("n0", 1, "x"))
    fault.begun()
    assert not fault.died("n1", 2, "x")
    assert not fault.is_certain(WELL, WELL)
    assert (fault.jobs, fault.nodes) == (1, ["n0"])
