"""When the spool is tried again that has refused something."""

from __future__ import annotations

import pytest
from scrapy import Spider
from twisted.internet.task import Clock

from scrapy_distributed.dispatch.room import LONGEST_PAUSE, Room

FULL = OSError(28, "No space left on device")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(clock: Clock) -> Room:
    return Room(spider=Spider(name="s"), clock=clock)


def waits(room: Room) -> bool:
    try:
        room.check()
    except OSError:
        return True
    return False


def test_the_pause_grows_to_a_minute_and_success_ends_it(room: Room, clock: Clock) -> None:
    pauses = []
    assert not waits(room)
    for _ in range(8):
        room.refused(FULL)
        pauses.append(room.pause)
        clock.advance(room.pause - 0.1)
        with pytest.raises(OSError, match="No space left on device"):
            room.check()
        clock.advance(0.1)
        assert not waits(room)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, LONGEST_PAUSE]
    room.took()
    assert not waits(room)
    room.refused(FULL)
    assert room.pause == 2


def test_jobs_that_are_at_it_together_are_one_failure(room: Room, clock: Clock) -> None:
    for _ in range(3):
        room.check()
    for _ in range(3):
        room.refused(FULL)
        clock.advance(0.5)
    assert room.pause == 2


def test_when_the_pause_is_over_one_job_tries_for_all(room: Room, clock: Clock) -> None:
    room.refused(FULL)
    clock.advance(2)
    assert [waits(room) for _ in range(3)] == [False, True, True]
    clock.advance(2)  # its node has not answered
    assert [waits(room) for _ in range(3)] == [False, True, True]
    room.took()
    assert [waits(room) for _ in range(3)] == [False, False, False]


def test_it_is_told_when_it_begins_and_when_it_is_over(
    room: Room, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    room.took()
    for _ in range(4):
        room.refused(FULL)
        clock.advance(room.pause)
        room.check()
    for _ in range(3):
        room.took()
    begun, over = caplog.messages
    assert begun.startswith("Items can't be kept here ([Errno 28] No space left on device): what workers have done")
    assert over == "Items can be kept here again: what has waited on its nodes is fetched"


def test_at_the_end_nothing_waits(room: Room) -> None:
    room.refused(FULL)
    room.hurry()
    assert not waits(room)
    room.refused(FULL)
    assert not waits(room)
