"""What is said of workers that join a shared run, and of settings that it does not ask for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.coordinator.shared_words import WhoHasJoined, not_asked
from scrapy_distributed.shared.address import RedisAddress

ADDRESS = RedisAddress.from_url("redis://:secret@queue/0")


def worker(host: str = "h1", *, version: str = "4f2a", spiders: tuple[str, ...] = ("s",), slots: int = 2) -> Any:
    return SimpleNamespace(host=host, version=version, spiders=spiders, slots=slots)


class Told:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        caplog.set_level("INFO")
        self.joined = WhoHasJoined(ADDRESS, spider="s", version="4f2a", extra={})

    def at(self, time: float, *workers: Any, ended: float | None = None) -> list[str]:
        """What is new in the log."""
        self.caplog.clear()
        state: Any = SimpleNamespace(time=time, workers=workers, ended=ended)
        self.joined.look(state)
        return self.caplog.messages


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_that_nobody_is_there_is_said_at_once_and_each_minute(told: Told) -> None:
    (words,) = told.at(1000)
    assert words.startswith("No worker has joined yet")
    assert words.endswith("scrapy worker redis://queue:6379/0")
    assert [len(told.at(1000 + seconds)) for seconds in (1, 59, 60, 61, 120)] == [0, 0, 1, 0, 1]


def test_those_who_join_are_told_once_and_when_they_are_others(told: Told) -> None:
    assert told.at(1, worker()) == ["1 worker (2 slots) has joined: h1"]
    assert told.at(100, worker()) == []
    assert told.at(101, worker(), worker("h2", slots=1)) == ["2 workers (3 slots) have joined: h1, h2"]
    assert told.at(102)[0].startswith("No worker has joined yet")


def test_a_run_that_is_over_waits_for_nobody(told: Told) -> None:
    assert told.at(1, worker()) == ["1 worker (2 slots) has joined: h1"]
    assert told.at(100, ended=99) == []


def test_other_code_is_named_with_what_to_do(told: Told) -> None:
    other, nobody = told.at(1, worker("h2", version="9c1b0d8e7f"))
    assert other.startswith("Waiting: 1 worker (2 slots) has code 9c1b0d8e, the run 4f2a: h2. Bring the same code")
    assert "No worker has joined that can take jobs of this run" in nobody
    assert len(told.at(61, worker("h2", version="9c1b0d8e7f"))) == 2


def test_who_does_not_have_the_spider_is_named(told: Told) -> None:
    assert told.at(1, worker(), worker("h2", spiders=("t",)))[0] == "1 worker (2 slots) does not have the spider s: h2"


def test_settings_that_are_not_asked_are_named_where_somebody_has_set_them() -> None:
    (line,) = not_asked(Settings({"DISTRIBUTED_BATCH_SIZE": 6, "DISTRIBUTED_LEASE": 30}))
    assert str(line).startswith("Shared run: not asked are DISTRIBUTED_BATCH_SIZE: ")
    assert list(not_asked(Settings())) == []
