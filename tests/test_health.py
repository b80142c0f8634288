"""Whose turn it is: round robin with room, nodes that fail, growing pauses, the backlog. Times are a fake clock's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.batch import Attempt, AttemptState
from scrapy_distributed.health import FIRST_PAUSE, LONGEST_PAUSE, Fleet, Flight, Member
from scrapy_distributed.node import DaemonStatus, Node, NodeAddress


class Nobody:
    """A client that is never asked."""


def member(number: int, **values: Any) -> Member:
    address = NodeAddress(name=f"n{number}", url=f"http://n{number}:6800")
    node = Node(address=address, client=Nobody(), clock=Nobody())  # type: ignore[arg-type]
    return Member(node=node, **values)


def load(to: Member, count: int = 1, **values: Any) -> list[Flight]:
    flights = []
    for _ in range(count):
        number = len(to.flights) + 1
        attempt = Attempt(run="r", batch=number, number=1, node=to.name, state=AttemptState.BOUND, positions=1)
        flights.append(Flight(attempt=attempt, evidence=0.0, **values))
        to.flights[attempt.job] = flights[-1]
    return flights


def status(running: int = 0, finished: int = 0, pending: int = 0) -> DaemonStatus:
    return DaemonStatus(pending=pending, running=running, finished=finished, node_name="x")


def turns(fleet: Fleet, count: int, **values: Any) -> list[str | None]:
    return [found.name if (found := fleet.take_turn(**values)) else None for _ in range(count)]


@given(size=st.integers(1, 6), rounds=st.integers(1, 4))
def test_with_room_everywhere_the_order_is_strict_round_robin(size: int, rounds: int) -> None:
    names = [f"n{number}" for number in range(size)]
    assert turns(Fleet([member(number) for number in range(size)]), size * rounds) == names * rounds


def test_a_node_that_fails_or_is_full_is_skipped_and_the_order_goes_on() -> None:
    members = [member(number) for number in range(4)]
    fleet = Fleet(members)
    assert turns(fleet, 1) == ["n0"]
    members[1].fail("down", 0)
    load(members[3], 8)
    assert turns(fleet, 3) == ["n2", "n0", "n2"]
    members[1].recover(FIRST_PAUSE)
    members[1].worked()
    assert turns(fleet, 3) == ["n0", "n1", "n2"]


def test_without_room_it_is_nobodys_turn() -> None:
    members = [member(number, fixed_backlog=1) for number in range(2)]
    fleet = Fleet(members)
    load(members[0])
    members[1].fail("down", 0)
    assert turns(fleet, 2) == [None, None]


def test_the_node_to_avoid_gets_it_only_if_there_is_no_other() -> None:
    members = [member(number, fixed_backlog=1) for number in range(3)]
    fleet = Fleet(members)
    assert turns(fleet, 3, avoid="n0") == ["n1", "n2", "n1"]
    load(members[1])
    load(members[2])
    assert turns(fleet, 1, avoid="n0") == [None]  # the others will have room again
    members[1].fail("down", 0)
    members[2].fail("down", 0)
    assert turns(fleet, 2, avoid="n0") == ["n0", "n0"]
    assert turns(Fleet([member(0)]), 1, avoid="n0") == ["n0"]
    assert turns(Fleet([member(0)]), 1, avoid="gone") == ["n0"]


def test_a_batch_that_was_sent_before_is_not_for_trying_out_a_node_that_has_failed() -> None:
    members = [member(number) for number in range(3)]
    fleet = Fleet(members)
    members[1].fail("down", 0)
    members[1].recover(FIRST_PAUSE)
    assert turns(fleet, 2, avoid="n0") == ["n2", "n2"]
    assert turns(fleet, 2) == ["n0", "n1"]
    members[2].fail("down", 0)
    assert turns(fleet, 1, avoid="n0") == ["n1"]  # there is no other


def test_the_backlog_is_twice_the_most_that_ran_and_at_least_eight() -> None:
    node = member(0)
    assert node.backlog == 8
    node.seen(status(running=3))
    assert node.backlog == 8
    node.seen(status(running=20))
    node.seen(status(running=2))
    assert node.backlog == 40
    node.fixed_backlog = 1
    assert node.backlog == 1


def test_only_our_own_unstarted_jobs_take_room() -> None:
    node = member(0, fixed_backlog=2)
    node.seen(status(running=5, pending=100))  # another project's
    assert node.has_room
    load(node, 4, started=True)
    load(node, 2, lost=True)
    load(node, 1, fenced=True)
    load(node, 1)
    assert node.has_room
    load(node, 1)
    assert not node.has_room


def test_pauses_grow_to_a_longest_one_and_the_news_is_told_once() -> None:
    node = member(0)
    now, pauses = 100.0, []
    assert node.fail("down", now)
    for _ in range(9):
        pauses.append(node.again_at - now)
        now = node.again_at
        assert not node.fail("down", now)
    assert node.fail("another reason", now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert node.trouble == "another reason"


def test_calls_that_fail_together_are_one_failure() -> None:
    node = member(0)
    for _ in range(5):
        node.fail("down", 100)
    assert node.again_at == 101


def test_after_its_pause_it_gets_one_job_and_after_that_as_many_as_before() -> None:
    node = member(0)
    node.fail("down", 100)
    node.recover(100.9)
    assert not node.has_room
    node.recover(101)
    assert node.has_room
    load(node)
    assert not node.has_room
    assert node.worked()
    assert node.has_room
    assert not node.worked()  # no news


def test_a_relapse_pauses_longer_and_is_no_news_until_it_has_worked() -> None:
    node = member(0)
    node.fail("down", 100)
    node.recover(101)
    assert not node.fail("down", 103)
    assert node.again_at == 105
    node.recover(105)
    node.worked()
    assert node.fail("down", 200)
    assert node.again_at == 201


def test_a_look_tells_whether_jobs_have_moved() -> None:
    node = member(0, silent=True)
    node.seen(status(running=1))
    assert (node.moved, node.silent) == (True, False)
    node.seen(status(running=1, pending=9))
    assert not node.moved
    node.seen(status(running=0, finished=1))
    assert node.moved


def test_members_are_found_by_name_and_all_flights_are_told() -> None:
    members = [member(0), member(1)]
    fleet = Fleet(members)
    flights = load(members[0], 2) + load(members[1])
    assert fleet.by_name("n1") is members[1]
    assert fleet.by_name("n2") is None
    assert [flight for _, flight in fleet.flights()] == flights
    assert [owner.name for owner, _ in fleet.flights()] == ["n0", "n0", "n1"]


@pytest.mark.parametrize("size", [1, 3])
def test_a_fleet_in_trouble_gets_nothing(size: int) -> None:
    members = [member(number) for number in range(size)]
    for one in members:
        one.fail("down", 0)
    assert turns(Fleet(members), 2, avoid="n0") == [None, None]
