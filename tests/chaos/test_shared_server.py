"""The server of a shared run comes back with less than it had acknowledged: the end of its append-only file is cut off,
in the middle of a script, as by a machine that loses its power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arena import wait_for
from crawling import Project, site
from shared_arena import JoinedPlace, joined_place
from valkey_child import ValkeyChild, valkey

PROPERTIES = 400


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("shared"), {}, settings="trial.chaos_settings")
    yield project
    project.end()


def log_of(queue: ValkeyChild) -> Path:
    (log,) = (queue.folder / "appendonlydir").glob("*.incr.aof")
    return log


def cut_off(queue: ValkeyChild, after: int) -> None:
    """The server is killed, and its file ends in the middle of the first script that is written after so many bytes."""
    queue.kill()
    log = log_of(queue)
    whole = log.read_bytes()
    begins = whole.index(b"*1\r\n$5\r\nMULTI\r\n", after)
    ends = whole.index(b"*1\r\n$4\r\nEXEC\r\n", begins)
    log.write_bytes(whole[: (begins + ends) // 2])
    queue.start()


def found(place: JoinedPlace) -> int:
    state = place.runs[0].state
    return state.balance.diverted if state else 0


def brought(place: JoinedPlace) -> int:
    """Attempts whose items have come to where they go, once the walk is done."""
    state = place.runs[0].state
    return state.taken if state and state.walked is not None else 0


STREAM = {"DISTRIBUTED_RESULTS": "redis"}


@pytest.mark.parametrize(
    ("count", "first", "more", "settings"),
    [(found, 60, 90, {}), (brought, 3, 3, {}), (found, 60, 90, STREAM), (brought, 3, 3, STREAM)],
    ids=["found", "home", "found, stream", "stream"],
)
def test_what_it_has_forgotten_is_crawled_again_and_comes_once(
    project: Project, tmp_path: Path, count: Callable[[JoinedPlace], int], first: int, more: int,
    settings: dict[str, str],
) -> None:  # fmt: skip
    """The coordinator notices, and the same command goes on."""
    with (
        site(PROPERTIES, latency=0.1) as child,
        # Each answer is of what stands in the file: else a slow disk lets the server hold it back for two seconds.
        valkey(appendonly="yes", appendfsync="always") as queue,
        joined_place(project, child, queue, tmp_path, properties=PROPERTIES, settings=settings) as place,
    ):
        for _ in range(2):
            place.join()
        run = place.begin("first", spider="distr")
        wait_for(lambda: count(place) >= first)
        before = log_of(queue).stat().st_size
        then = count(place) + more
        wait_for(lambda: count(place) >= then)
        cut_off(queue, before)
        place.finish(120)
        place.prove()
        assert "has forgotten what it had taken" in run.crawls[0].log
        assert [crawl.process.returncode for crawl in run.crawls] == [1, 0]
        if place.streams and count is brought:
            check = project.scrapy("batches", "check", "--ledger", queue.url, folder=tmp_path).wait()
            assert "forgotten by the server after they had been there" in check.log
            assert check.process.returncode == 0, check.log
