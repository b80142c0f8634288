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
        ([("n0", 1, "x"), ("n0", 2, "x")], ("n0",), True),  # the other one is away
        ([("n0", 1, "x"), ("n1", 2, "x")], (), True),  # both are in doubt by now
        ([("n0", 1, "x"), ("n0", 1, "x")], ("n0",), False),
        ([("n0", 1, "x"), ("n0", 1, "x"), ("n0", 1, "x")], ("n0",), True),  # there may be no other batch
        ([("n0", 1, "x"), ("n1", 2, "y")], WELL, False),
        ([("n0", 1, "x"), ("n1", 2, "")], WELL, False),
        ([("n0", 1, ""), ("n0", 1, "x"), ("n1", 2, "x")], WELL, False),
    ],
)
def test_each_node_has_had_its_turn_and_all_have_died_of_the_same(
    deaths: list[tuple[str, int, str]], well: tuple[str, ...], certain: bool
) -> None:
    assert told(*deaths).is_certain(well) == certain


def test_a_job_that_has_done_something_rules_it_out() -> None:
    fault = told(("n0", 1, "x"))
    fault.begun()
    assert not fault.died("n1", 2, "x")
    assert not fault.is_certain(WELL)
    assert (fault.jobs, fault.nodes) == (1, ["n0"])
