"""Whose turn it is: round robin with room, nodes that fail, growing pauses, the backlog. Times are a fake clock's."""

from __future__ import annotations

from typing import Any

import pytest
from carriers import idle_member as member
from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.leases import LONGEST_START, USUAL_START, Starts
from scrapy_distributed.dispatch.members import Fleet, Member, Slots
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.fleet.pace import GUESSED_SLOTS, LARGEST_BACKLOG, Told
from scrapy_distributed.fleet.trust import BAD_JOBS, FIRST_PAUSE, LONGEST_DOWN, LONGEST_PAUSE, Proof, Trust
from scrapy_distributed.ledger.states import Attempt, AttemptState


def load(to: Member, count: int = 1, **values: Any) -> list[Flight]:
    flights = []
    values = {"sent_at": 0.0, "evidence": 0.0} | values
    for _ in range(count):
        number = len(to.flights) + 1
        attempt = Attempt(
            run="r", batch=number, number=1, token="ab", node=to.name, state=AttemptState.BOUND, positions=1
        )
        flights.append(Flight(attempt=attempt, **values))
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
    members[1].trust.fail("down", 0)
    load(members[3], 8)
    assert turns(fleet, 3) == ["n2", "n0", "n2"]
    members[1].trust.recover(FIRST_PAUSE)
    members[1].worked(Proof.TAKES)
    assert turns(fleet, 3) == ["n0", "n1", "n2"]


def test_what_the_job_of_a_fenced_attempt_has_left_is_of_no_use() -> None:
    one = member(0)
    taken_back, fenced = load(one, 2)
    fenced.fence()
    for flight in (taken_back, fenced):
        one.forget(flight)
        assert flight.over
    assert vars(one.carrier)["done_jobs"] == [fenced.job]


def test_without_room_it_is_nobodys_turn() -> None:
    members = [member(number, fixed_backlog=1) for number in range(2)]
    fleet = Fleet(members)
    load(members[0])
    members[1].trust.fail("down", 0)
    assert turns(fleet, 2) == [None, None]


def test_the_node_to_avoid_gets_it_only_if_there_is_no_other() -> None:
    members = [member(number, fixed_backlog=1) for number in range(3)]
    fleet = Fleet(members)
    assert turns(fleet, 3, avoid="n0") == ["n1", "n2", "n1"]
    load(members[1])
    load(members[2])
    assert turns(fleet, 1, avoid="n0") == [None]  # the others will have room again
    members[1].trust.fail("down", 0)
    members[2].trust.fail("down", 0)
    assert turns(fleet, 2, avoid="n0") == ["n0", "n0"]
    assert turns(Fleet([member(0)]), 1, avoid="n0") == ["n0"]
    assert turns(Fleet([member(0)]), 1, avoid="gone") == ["n0"]


def test_a_batch_that_was_sent_before_is_not_for_trying_out_a_node_that_has_failed() -> None:
    members = [member(number) for number in range(3)]
    fleet = Fleet(members)
    members[1].trust.fail("down", 0)
    members[1].trust.recover(FIRST_PAUSE)
    assert turns(fleet, 2, avoid="n0") == ["n2", "n2"]
    assert turns(fleet, 2) == ["n0", "n1"]
    members[2].trust.fail("down", 0)
    assert turns(fleet, 1, avoid="n0") == ["n1"]  # there is no other
    load(members[1])  # its trial
    assert turns(fleet, 1, avoid="n0") == ["n0"]


def test_the_backlog_is_twice_the_most_that_ran_and_at_least_eight() -> None:
    node = member(0)
    assert node.backlog == 8
    node.seen(status(running=3), 0)
    assert node.backlog == 8
    node.seen(status(running=20), 0)
    node.seen(status(running=2), 0)
    assert node.backlog == 40
    node.seen(status(running=10_000), 0)
    assert node.backlog == LARGEST_BACKLOG
    node.fixed_backlog = 1
    assert node.backlog == 1


def test_only_our_own_unstarted_jobs_take_room() -> None:
    node = member(0, fixed_backlog=2)
    node.seen(status(running=5, pending=100), 0)  # another project's
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
    assert node.trust.fail("down", now)
    for _ in range(9):
        pauses.append(node.trust.again_at - now)
        now = node.trust.again_at
        assert not node.trust.fail("down", now)
    assert node.trust.fail("another reason", now)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert node.trust.trouble == "another reason"


def test_where_nothing_listens_pauses_stay_short() -> None:
    """To ask again costs hardly anything. It may also have been silent before."""
    node = member(0)
    now, pauses = 100.0, []
    for down in [False] * 5 + [True] * 3:
        node.trust.goes_silent(now, down=down)
        node.trust.fail("away", now)
        pauses.append(node.trust.again_at - now)
        now = node.trust.again_at
    assert pauses == [1, 2, 4, 8, 16, LONGEST_DOWN, LONGEST_DOWN, LONGEST_DOWN]


def test_calls_that_fail_together_are_one_failure() -> None:
    node = member(0)
    for _ in range(5):
        node.trust.fail("down", 100)
    assert node.trust.again_at == 101


def test_after_its_pause_it_gets_one_job_and_after_that_as_many_as_before() -> None:
    node = member(0)
    node.trust.fail("down", 100)
    node.trust.recover(100.9)
    assert not node.has_room
    node.trust.recover(101)
    assert node.has_room
    load(node)
    assert not node.has_room
    assert node.worked(Proof.TAKES)
    assert node.has_room
    assert not node.worked(Proof.TAKES)  # no news


def test_a_relapse_pauses_longer_and_is_no_news_until_it_has_worked() -> None:
    node = member(0)
    node.trust.fail("down", 100)
    node.trust.recover(101)
    assert not node.trust.fail("down", 103)
    assert node.trust.again_at == 105
    node.trust.recover(105)
    node.worked(Proof.TAKES)
    assert node.trust.fail("down", 200)
    assert node.trust.again_at == 201


def test_a_look_tells_whether_jobs_have_moved() -> None:
    node = member(0, trust=Trust(silent=True))
    node.seen(status(running=1), 0)
    assert (node.pace.moved, node.trust.silent) == (True, False)
    node.seen(status(running=1), 0)
    assert node.pace.moved  # at the look before: it may have written a receipt after that
    node.pace.taken += 9
    node.seen(status(running=1, pending=9), 0)
    assert not node.pace.moved
    node.seen(status(running=0, finished=1, pending=9), 0)
    assert node.pace.moved


def test_where_a_job_ends_as_another_starts_the_queue_tells_but_does_not_show_that_jobs_start() -> None:
    node = member(0)
    for _ in range(2):
        node.seen(status(running=0, pending=5, finished=100), 7)
    node.seen(status(running=0, pending=5, finished=100), 8)
    assert not node.pace.moved
    node.seen(status(running=0, pending=4, finished=100), 9)
    assert (node.pace.moved, node.pace.still_since) == (True, 7)  # it may have been taken back


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
        one.trust.fail("down", 0)
    assert turns(Fleet(members), 2, avoid="n0") == [None, None]


def test_a_node_is_found_by_its_url_whatever_its_name_was() -> None:
    """In an earlier run n1 may have been called n0, and another node n1."""
    members = [member(0), member(1)]
    fleet = Fleet(members)
    assert fleet.by_url("http://n1:6800") is members[1]
    assert fleet.by_url("http://n2:6800") is None
    assert fleet.by_url("") is None


# Doubt and proof


@pytest.mark.parametrize("needs", Proof)
def test_a_doubt_ends_with_what_was_asked_for_or_more(needs: Proof) -> None:
    for shown in Proof:
        node = member(0)
        node.trust.fail("down", 100, needs=needs)
        assert node.worked(shown) is (shown >= needs)
        assert node.trust.well is (shown >= needs)
        assert bool(node.trust.trouble) is (shown < needs)


@pytest.mark.parametrize("first", Proof)
@pytest.mark.parametrize("second", Proof)
def test_the_greater_of_two_doubts_remains_and_an_old_one_is_forgotten(first: Proof, second: Proof) -> None:
    node = member(0)
    node.trust.fail("one", 100, needs=first)
    node.trust.fail("two", 200, needs=second)
    assert node.trust.needs is max(first, second)
    assert node.worked(Proof.DELIVERS)
    node.trust.fail("three", 300, needs=second)
    assert node.trust.needs is second


def test_jobs_that_come_to_nothing_in_a_row_make_a_doubt_and_an_accepted_one_between_them_does_not() -> None:
    node = member(0)
    for _ in range(3):
        for _ in range(BAD_JOBS - 1):
            assert not node.trust.job_failed("no receipt", 100)
        assert node.trust.well
        node.worked(Proof.DELIVERS)
    for _ in range(BAD_JOBS - 1):
        node.trust.job_failed("no receipt", 100)
        node.worked(Proof.STARTS)  # that is no proof of what is asked for
    assert node.trust.job_failed("no receipt", 100)
    assert (node.trust.needs, node.trust.trouble) == (Proof.DELIVERS, "no receipt")
    assert not node.trust.job_failed("no receipt", 200)  # no news
    assert not node.worked(Proof.STARTS)
    assert node.worked(Proof.DELIVERS)
    assert node.trust.well
    assert not node.trust.job_failed("no receipt", 300)


def test_a_node_in_doubt_gets_one_job_at_a_time() -> None:
    node = member(0)
    node.trust.fail("its jobs come to nothing", 100, needs=Proof.DELIVERS)
    assert not node.has_room
    node.trust.recover(101)
    (trial,) = load(node, trial=True)
    assert node.trial is trial
    assert not node.has_room
    trial.started = True
    node.worked(Proof.STARTS)
    assert not node.has_room  # it is to be accepted first
    trial.lost = True
    assert node.trial is None
    assert node.has_room


def test_jobs_that_wait_there_since_before_the_doubt_leave_no_room_for_a_trial() -> None:
    node = member(0)
    load(node)
    node.trust.fail("down", 100)
    node.trust.recover(101)
    assert not node.has_room
    node.flights.clear()
    load(node, started=True)
    assert node.has_room


def test_what_was_a_trial_is_a_job_like_others_when_the_doubt_is_over() -> None:
    node = member(0)
    node.trust.fail("down", 100)
    node.trust.recover(101)
    load(node, trial=True)
    assert node.worked(Proof.TAKES)
    assert node.trial is None
    node.flights["r-000001-1-ab"].started = True
    node.trust.fail("down", 200)
    node.trust.recover(201)
    assert node.has_room  # for a new one


# Slots that are free, and nodes that start nothing


def test_free_slots_are_those_that_were_seen_busy_and_at_least_one_where_nothing_runs() -> None:
    node = member(0)
    assert node.idle_slots == 1
    node.seen(status(running=3), 0)
    assert node.idle_slots == 0
    node.seen(status(running=1, finished=2), 0)
    assert node.idle_slots == 2
    load(node, started=True)
    assert node.idle_slots == 2
    load(node)
    assert node.idle_slots == 0  # that job takes one
    node.flights.clear()
    node.trust.fail("down", 0)
    assert node.idle_slots == 0
    node.trust.recover(FIRST_PAUSE)
    assert node.idle_slots == 0  # in doubt


def test_where_a_node_was_restarted_what_it_has_forgotten_takes_slots() -> None:
    node = member(0)
    load(node, 2, started=True)
    node.seen(status(running=2), 0)
    node.seen(status(running=0), 1)
    assert node.idle_slots == 0
    node.flights.popitem()
    assert node.idle_slots == 1


def test_a_node_that_is_drained_gets_nothing_and_counts_for_nothing() -> None:
    node, other = member(0), member(1)
    fleet = Fleet([node, other])
    assert fleet.slots().all == 4
    node.drained = True
    assert (node.has_room, node.idle_slots, fleet.slots().all) == (False, 0, 2)
    assert [fleet.take_turn() for _ in range(2)] == [other, other]
    assert node.usable(waiting=False)
    assert not node.usable(waiting=True)
    (flight,) = load(node)
    flight.confirmed = True
    assert node.usable(waiting=True)  # what it has is waited for


def test_slots_that_are_known_count_in_place_of_those_that_were_seen() -> None:
    node = member(0)
    assert (node.pace.slots, node.pace.poll) == (GUESSED_SLOTS, None)
    node.seen(status(running=3), 0)
    assert node.pace.slots == 3
    assert node.pace.learns(Told(5, 2.0))
    assert not node.pace.learns(Told(5, 2.0))
    assert not node.pace.learns(Told())  # of a job that can't know
    assert (node.pace.slots, node.pace.poll, node.idle_slots) == (5, 2.0, 2)
    node.seen(DaemonStatus(pending=0, running=3, finished=0, node_name="x", slots=4, poll_seconds=0), 1)
    assert (node.pace.slots, node.pace.poll, node.idle_slots) == (4, 0, 1)  # it says so itself


def test_slots_are_those_of_nodes_that_are_well() -> None:
    told, guessed, down = (member(number) for number in range(3))
    fleet = Fleet([told, guessed, down])
    fleet.were_told({told.carrier.url: (4, 5.0), "http://gone:6800": (9, 9.0)})
    down.trust.fail("down", 0)
    told.seen(status(running=1), 0)
    told.add(load(told, started=True)[0])
    told.add(load(told)[0])
    assert fleet.slots() == Slots(all=8, free=6, idle=4, polls=1, unused=2, poll=5.0)  # the other is taken to be alike
    guessed.pace.learns(Told(1, 0.0))
    load(guessed)
    assert fleet.slots() == Slots(all=5, free=2, idle=4, polls=1, unused=3, poll=0.0)
    told.trust.fail("down", 0)
    guessed.trust.fail("down", 0)
    assert fleet.slots() == Slots(all=1, free=0)


def test_nodes_of_which_nothing_is_known_are_taken_to_be_like_those_that_have_told() -> None:
    members = [member(number) for number in range(4)]
    fleet = Fleet(members)
    members[3].seen(DaemonStatus(pending=0, running=0, finished=0, node_name="x", slots=9), 0)  # it says so itself
    assert [one.pace.slots for one in members] == [GUESSED_SLOTS, GUESSED_SLOTS, GUESSED_SLOTS, 9]
    assert fleet.learns(members[0], Told(6, 5.0))
    assert not fleet.learns(members[0], Told(6, 5.0))
    assert [one.pace.slots for one in members] == [6, 6, 6, 9]
    fleet.learns(members[1], Told(4, 5.0))
    assert [one.pace.slots for one in members] == [6, 4, 4, 9]


def test_no_job_waits_for_a_slot_before_one_has_ended() -> None:
    """Nobody knows until then how large it should be."""
    node = member(0, late=True)
    fleet = Fleet([node])
    load(node, GUESSED_SLOTS)
    assert not node.has_room
    fleet.a_job_has_ended()
    assert node.has_room


def test_a_node_with_many_slots_has_room_for_as_many_jobs_at_once() -> None:
    node = member(0, late=True, ahead=True)
    node.pace.learns(Told(64, 5.0))
    load(node, 127)
    assert node.has_room
    load(node)
    assert not node.has_room
    fixed = member(0, late=True, ahead=True, fixed_backlog=1)
    load(fixed)
    assert not fixed.has_room


@pytest.mark.parametrize(("poll", "jobs"), [(None, 6), (5.0, 6), (0.0, 3)], ids=["unknown", "polls", "at once"])
def test_where_batches_are_cut_late_each_slot_has_a_job_and_one_that_waits_where_it_must(
    poll: float | None, jobs: int
) -> None:
    """Also where a launcher starts jobs at once, as we do not hear at once when one has ended."""
    node = member(0, late=True, ahead=True)
    node.seen(DaemonStatus(pending=0, running=0, finished=0, node_name="x", slots=3, poll_seconds=poll), 0)
    node.pace.learns(Told(3, 0.0))
    taken = 0
    while node.has_room:
        load(node, started=taken < 3)
        taken += 1
    assert taken == jobs


def test_a_job_that_is_sent_where_each_slot_has_one_is_queued() -> None:
    node, jobs = member(0), load(member(1), 3)
    for job in jobs:
        node.add(job)
    assert [job.queued for job in jobs] == [False, False, True]
    assert node.most_jobs == 3


def test_a_job_is_the_first_in_its_slot_where_as_many_were_never_under_way_before() -> None:
    node, (one, two, three, four) = member(0), load(member(1), 4)
    node.add(one)
    node.forget(one)
    for job in (two, three, four):
        node.add(job)
    assert [job.is_first for job in (one, two, three, four)] == [True, False, True, False]  # it has two slots


def test_a_node_with_a_free_slot_comes_before_one_where_a_job_would_wait() -> None:
    small, large = member(0, late=True, ahead=True), member(1, late=True, ahead=True)
    small.pace.learns(Told(1, 5.0))
    large.pace.learns(Told(3, 5.0))
    fleet = Fleet([small, large])
    order = []
    while (one := fleet.take_turn()) is not None:
        order.append(one.name)
        load(one)
    assert order == ["n0", "n1", "n1", "n1", "n0", "n1", "n1", "n1"]


def test_a_node_that_passed_a_job_on_has_no_free_slot_until_something_moves() -> None:
    node = member(0)
    node.seen(status(), 0)
    node.passed_until = 100
    node.seen(status(pending=4), 1)
    assert node.idle_slots == 0
    node.seen(status(running=1), 2)
    node.seen(status(finished=1), 3)
    assert node.idle_slots == 1
    node.passed_until = 100
    node.seen(status(finished=1), 99)
    assert node.idle_slots == 0
    node.seen(status(finished=1), 100)
    assert node.idle_slots == 1


def test_a_job_that_waits_may_come_to_a_node_in_doubt_where_calls_had_failed_or_none_is_well() -> None:
    node = member(0)
    assert not node.would_try(any_well=True)  # it is well
    node.trust.fail("down", 0)
    assert not node.would_try(any_well=True)
    node.trust.recover(FIRST_PAUSE)
    assert node.would_try(any_well=True)
    node.trust.needs = Proof.STARTS
    assert not node.would_try(any_well=True)
    assert node.would_try(any_well=False)
    load(node)
    assert not node.would_try(any_well=False)


def test_a_node_is_wedged_where_jobs_wait_and_nothing_runs_or_starts_for_so_long() -> None:
    node = member(0)
    (waits,) = load(node, pending=True, sent_at=10.0)
    for now in (10, 40, 69):
        node.seen(status(pending=1), now)
        assert not node.wedged(now, 60)
    assert node.wedged(70, 60)
    assert not node.wedged(70, 61)
    waits.pending = False
    assert not node.wedged(70, 60)


@pytest.mark.parametrize(
    "at_40", [status(running=1), status(finished=1)], ids=["something runs", "something has started and ended"]
)
def test_a_node_whose_slots_are_busy_is_not_wedged(at_40: DaemonStatus) -> None:
    node = member(0)
    load(node, pending=True, sent_at=0.0)
    node.seen(status(pending=1), 0)
    node.seen(at_40, 40)
    node.seen(status(pending=1, finished=at_40.finished), 41)
    assert not node.wedged(90, 60)
    assert node.wedged(101, 60)


def test_a_job_that_has_just_been_sent_does_not_make_a_quiet_node_wedged() -> None:
    node = member(0)
    node.seen(status(), 0)
    load(node, pending=True, sent_at=500.0)
    node.seen(status(pending=1), 510)
    assert not node.wedged(510, 60)


def test_a_node_that_was_not_heard_of_for_long_is_not_wedged_as_soon_as_it_answers() -> None:
    node = member(0)
    load(node, pending=True, sent_at=0.0)
    node.seen(status(pending=1), 1)
    node.trust.silent = True
    node.seen(status(pending=1), 500)
    assert not node.wedged(500, 60)
    node.seen(status(pending=1), 560)
    assert node.wedged(560, 60)


# Hope


def test_a_node_can_be_hoped_for_while_it_is_well_or_a_job_may_prove_it() -> None:
    node = member(0)
    assert node.usable(waiting=True)
    node.trust.fail("down", 0)
    assert not node.usable(waiting=False)
    node.trust.recover(FIRST_PAUSE)
    assert node.usable(waiting=False)  # it answers, and nothing is to be sent
    assert not node.usable(waiting=True)
    (job,) = load(node)
    assert not node.usable(waiting=True)  # nobody knows whether it has it
    job.confirmed = True
    assert node.usable(waiting=True)
    job.lost = True
    assert not node.usable(waiting=True)


def test_where_jobs_come_to_nothing_one_more_gives_no_hope_but_at_work_it_is_waited_for() -> None:
    node = member(0)
    node.trust.fail("no receipt", 0, needs=Proof.DELIVERS)
    node.trust.recover(FIRST_PAUSE)
    load(node, confirmed=True, started=True)
    assert not node.usable(waiting=True)
    (trial,) = load(node, confirmed=True, trial=True)
    assert not node.usable(waiting=True)
    trial.started = True
    assert not node.proving
    trial.at_work = True
    assert node.proving
    assert not node.usable(waiting=True)


@given(data=st.data(), size=st.integers(1, 4))
def test_a_turn_is_of_a_member_with_room_and_nobodys_only_where_none_may_have_it(
    data: st.DataObject, size: int
) -> None:
    members = [member(number, fixed_backlog=2) for number in range(size)]
    for one in members:
        load(one, data.draw(st.integers(0, 2)))
        if data.draw(st.booleans()):
            one.trust.fail("down", 0, needs=data.draw(st.sampled_from(Proof)))
            one.trust.recover(data.draw(st.sampled_from([0.0, FIRST_PAUSE])))
    avoid = data.draw(st.none() | st.sampled_from([one.name for one in members]))
    turn = Fleet(members).take_turn(avoid=avoid)
    with_room = [one for one in members if one.has_room]
    others = [one for one in members if one.trust.well and one.name != avoid]
    if turn is None:
        # All that have room are to be avoided, or untried, and others work.
        assert not with_room or (avoid and others and not any(one.has_room for one in others))
    else:
        assert turn in with_room
        assert avoid is None or not others or turn in others


def test_a_start_may_take_a_lease_and_more_where_starts_were_seen_to_be_slow() -> None:
    starts = Starts(10)
    starts.took(3)
    assert starts.seconds == 10
    starts.took(5)
    assert starts.seconds == 5 * USUAL_START
    starts.took(1)
    assert starts.seconds == 5 * USUAL_START
    starts.took(1000)
    assert starts.seconds == 10 * LONGEST_START


def test_where_the_time_was_short_there_is_twice_as_much_once_for_those_that_started_together() -> None:
    starts, node = Starts(10), member(0)
    assert [starts.was_short(flight, 10) for flight in load(node, 3)] == [True, False, False]
    assert starts.seconds == 20
    later = [load(node, sent_at=sent)[0] for sent in (10, 111, 300)]
    assert [starts.was_short(flight, flight.sent_at + 100) for flight in later] == [True, True, False]
    assert starts.seconds == 10 * LONGEST_START
