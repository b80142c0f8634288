"""Where chaos comes over shared runs: a real Valkey, workers that join it, and coordinators that are begun again until
their run has its result. Where that is a stream they are begun in two folders in turn."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arena import ARGS, linked, log_tail, processes, slowness, strike, wait_for
from crawling import Crawl, Project, SiteChild
from local import canonical, local_items, read
from streams import each_once, entries
from valkey_child import ValkeyChild

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.shared.account import Account, runs
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.intake import State
from scrapy_distributed.shared.server import Server

PROJECT = "trial"
SECONDS_BETWEEN_LOOKS = 0.1
LEASE = 4  # seconds, on a machine that has nothing else to do
SLOTS = 2
# One page after the other, so that there is a while to strike a walk, and workers.
WALK = {"CONCURRENT_REQUESTS": 1, "DOWNLOAD_DELAY": 0.5, "RANDOMIZE_DOWNLOAD_DELAY": False}
JOBS = {"CONCURRENT_REQUESTS": 1, "DOWNLOAD_DELAY": 0, "DOWNLOAD_TIMEOUT": 20}
# What Python says of a command that is interrupted before it listens: up to the line that names it no line of a log.
INTERRUPTED = re.compile(r"^Traceback \(most recent call last\):\n(?:(?!\d{4}-).*\n)*?KeyboardInterrupt$", re.MULTILINE)


class Looks:
    """Looks at all runs of the project, again and again, from a thread of its own: the balance of each must hold every
    time that the server answers. *states*: how each run was at the last look; *number*: of rounds."""

    def __init__(self, address: RedisAddress) -> None:
        self.states: dict[str, State] = {}
        self.number = 0
        self._address = address
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what a look has found wrong."""
        if self._error is not None:
            raise AssertionError(f"at look {self.number}: {self._error}") from self._error

    def close(self) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            asyncio.run(self._look())
        except BaseException as error:
            self._error = error

    async def _look(self) -> None:
        server = Server(self._address)
        try:
            while not self._over.is_set():
                try:
                    for run in await runs(server, PROJECT):
                        self._enter(run.name, await Account(server, PROJECT, run.name).state())
                    self.number += 1
                except LedgerUnavailableError:
                    pass
                await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            await server.close()

    def _enter(self, run: str, state: State) -> None:
        self.states[run] = state
        assert state.balance.holds, f"run {run}: {state.balance}"
        assert bool(state.at_work) == bool(state.balance.in_flight), f"run {run}: {state}"


class JoinedRun:
    """A run of *spider*, however often its coordinators die; its result is in ``output``, or in a stream."""

    def __init__(self, place: JoinedPlace, folder: Path, *, spider: str, args: Mapping[str, Any] | None = None) -> None:
        self.place = place
        self.folder = folder
        self.spider = spider
        self.args = dict(args or ARGS.get(spider, lambda _: {})(place.properties))
        self.crawls: list[Crawl] = []
        self._folders = [folder / "one", folder / "two"] if place.streams else [folder]
        for one in self._folders:
            one.mkdir(parents=True)
        self._ended_at: int | None = None  # look at which no coordinator was there any more

    @property
    def output(self) -> Path:
        return self.folder / "out.jl"

    def begin(self) -> Crawl:
        """Give the command."""
        settings = {
            "DISTRIBUTED_TARGET_HOSTS": self.place.queue.url,
            "DISTRIBUTED_LEASE": self.place.lease,
            "DISTRIBUTED_TARGET_FEED_URL": "",
            "DISTRIBUTED_WORKER_SETTINGS": json.dumps(JOBS),
            **WALK,
            **self.place.settings,
        }
        crawl = self.place.project.crawl(
            self.spider, folder=self._folders[len(self.crawls) % len(self._folders)],
            args={**self.args, "site": self.place.site.url}, settings=settings,
            output=() if self.place.streams else ("-O", str(self.output)),
        )  # fmt: skip
        self.crawls.append(crawl)
        self._ended_at = None
        return crawl

    def alive(self) -> list[Crawl]:
        """Its coordinators."""
        return [crawl for crawl in self.crawls if crawl.process.poll() is None]

    @property
    def name(self) -> str | None:
        """Of its run, as far as one of its coordinators has told."""
        found = [name for crawl in self.crawls for name in re.findall(r"Run (\S+) of project", crawl.log)]
        return found[-1] if found else None

    @property
    def state(self) -> State | None:
        return self.place.looks.states.get(self.name or "")

    @property
    def walks(self) -> bool:
        """Whether a walk has begun, and is not over."""
        return self.state is not None and self.state.walked is None

    @property
    def has_walked(self) -> bool:
        return self.state is not None and self.state.walked is not None

    def goes_on(self) -> bool:
        """Whether its result is not stored. Where no coordinator is left the same command goes on."""
        looks = self.place.looks
        if self.alive():
            return True
        if self._ended_at is None:
            self._ended_at = looks.number
        if looks.number < self._ended_at + 2:  # the server may be away just now
            return True
        if self.state is not None and self.state.stored:
            return False
        self.begin()
        return True

    def prove(self) -> None:
        """The items of a local crawl, none missing, none twice; and what the server and the last coordinator say."""
        state = self.state
        assert state is not None
        assert state.balance.settled, state
        assert (state.balance.crawled, state.balance.diverted) == (state.balance.diverted, self.place.properties), state
        assert (state.home, state.moving, state.at_work, state.again, state.portions) == (0, 0, 0, 0, 0), state
        args = tuple(sorted(self.args.items()))
        expected = local_items(self.place.project, self.spider, args, self.place.properties)
        found = canonical(self._items(), self.place.site)
        missing, too_many = sorted((expected - found).elements()), sorted((found - expected).elements())
        words = f"of {expected.total()} items {len(missing)} are missing {missing[:3]}, {len(too_many)} too many"
        assert found == expected, f"{words} {too_many[:3]}"
        for crawl in self.crawls:
            assert crawl.stat("distributed/difference") in (0, None), crawl.log
        codes = [crawl.process.returncode for crawl in self.crawls]
        # It may be told to end before it listens.
        assert set(codes) <= {0, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}, codes

    def _items(self) -> list[dict[str, Any]]:
        if not self.place.streams:
            assert self.output.read_text().endswith("\n")
            return read(self.output)
        found = each_once([entry for entry in entries(self.place.queue) if entry.run == self.name])
        check = self.place.project.scrapy(
            "batches", "check", "--json", "--run", str(self.name), "--ledger", self.place.queue.url, folder=self.folder
        ).wait()  # fmt: skip
        (told,) = json.loads(check.log)["runs"]
        assert (check.process.returncode, told["results"]["there"]) == (0, len(found)), check.log
        return [entry.fields for entry in found]


class JoinedPlace:
    """*project* with its *site*, the server *queue*, and who has joined it. All that it starts ends with ``end``."""

    def __init__(
        self, project: Project, site: SiteChild, queue: ValkeyChild, folder: Path, *, properties: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.project = project
        self.site = site
        self.queue = queue
        self.folder = folder
        self.properties = properties
        self.settings = dict(settings or {})
        self.streams = "DISTRIBUTED_RESULTS" in self.settings
        self.lease = round(LEASE * slowness(), 1)
        self.looks = Looks(queue.address)
        self.workers: list[Crawl] = []
        self.others: list[Crawl] = []  # with other code
        self.runs: list[JoinedRun] = []
        self.note = str

    def worker(self, *options: str) -> Crawl:
        """One more, which has a folder of its own."""
        folder = self.folder / f"worker-{len(self.workers) + len(self.others) + 1}"
        folder.mkdir()
        words = ("worker", self.queue.url, "--slots", str(SLOTS), "--logs", str(folder / "logs"), *options)
        return self.project.scrapy(*words, folder=folder)

    def join(self) -> Crawl:
        self.workers.append(self.worker())
        return self.workers[-1]

    def join_with_other_code(self) -> Crawl:
        self.others.append(self.worker("-s", "DISTRIBUTED_VERSION=other"))
        return self.others[-1]

    def begin(self, name: str, **given: Any) -> JoinedRun:
        run = JoinedRun(self, self.folder / name, **given)
        self.runs.append(run)
        run.begin()
        return run

    def joined(self) -> list[Crawl]:
        """The workers that live."""
        return [worker for worker in self.workers if worker.process.poll() is None]

    def jobs(self) -> list[int]:
        """What writes to the log of a job."""
        return sorted(pid for folder in self.folder.glob("worker-*/logs") for pid in linked(folder, "fd/1"))

    def warm(self) -> list[int]:
        """What jobs are forked from."""
        ours = {pid for worker in self.joined() for pid in processes(worker.process.pid)}
        return sorted(ours - set(self.jobs()) - {worker.process.pid for worker in self.joined()})

    def goes_on(self) -> bool:
        """Whether the result of a run is not stored. Raises ``AssertionError`` where a balance did not hold."""
        self.looks.check()
        going = [run for run in self.runs if run.goes_on()]  # of each: it may have to be begun again
        return bool(going)

    def finish(self, seconds: float) -> None:
        began = time.monotonic()
        while self.goes_on():
            assert time.monotonic() - began < seconds * slowness(), f"not over\n{self.describe()}"
            time.sleep(0.05)

    def prove(self) -> None:
        """All runs are over and right, and nothing is left of what was under way."""
        try:
            self.looks.check()
            for run in self.runs:
                run.prove()
            for what in ("staged:*", "lease", "portion", "used", "again", "moving", "home", "own"):
                found = self.queue.ask("KEYS", f"*:{what}")
                assert not found, f"left on the server: {found}"
            self._all_end()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def _all_end(self) -> None:
        """Workers that are told to end do so, and leave no process."""
        told = [worker for worker in (*self.workers, *self.others) if worker.process.poll() is None]
        for worker in told:
            strike(worker.process.pid, signal.SIGTERM)
        wait_for(lambda: all(worker.process.poll() is not None for worker in told))
        assert [worker.process.returncode for worker in told] == [0] * len(told)
        wait_for(lambda: not linked(self.folder, "fd/1"), 45)
        for crawl in self._commands():
            assert "Traceback" not in INTERRUPTED.sub("", crawl.log), crawl.log[-6000:]

    def _commands(self) -> Iterator[Crawl]:
        yield from self.workers
        yield from self.others
        for run in self.runs:
            yield from run.crawls

    def describe(self) -> str:
        """What is needed to see why it went wrong."""
        lines = [self.note(), f"folder {self.folder}", *(f"{run.spider}: {run.state}" for run in self.runs)]
        for crawl in self._commands():
            lines.append(f"--- {crawl.folder.name}, ended with {crawl.process.poll()}\n{log_tail(crawl)}")
        return "\n".join(lines)

    def end(self) -> None:
        """Kill what is left."""
        self.looks.close()
        for crawl in self._commands():
            crawl.end()
        for pid in {*linked(self.folder, "fd/1"), *linked(self.folder, "cwd")}:
            strike(pid, signal.SIGKILL)


@contextmanager
def joined_place(*given: Any, **named: Any) -> Iterator[JoinedPlace]:
    place = JoinedPlace(*given, **named)
    try:
        yield place
    finally:
        place.end()
