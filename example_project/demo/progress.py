"""How a crawl goes: a look at it every second, shown in the terminal and kept for the report."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.request
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

from result import Sample, attempts_of
from shifts import Analysis, Tables

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.local_credentials import Credentials, of_url
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.words import counted

SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_FOR_AN_ANALYSIS = 2
SHIFTS_SHOWN = 2  # from above, and from below

# The fleet is on this machine: a proxy of the environment must not be asked for it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

UNDER_WAY = (AttemptState.BOUND, AttemptState.SENT)
OVER = (AttemptState.ACCEPTED, AttemptState.REJECTED)

UNREADABLE = (OSError, HTTPException, ValueError, KeyError)
"""What `fetch`, or reading what it brings, raises when a server is on its way out."""


def fetch(url: str, credentials: Credentials | None = None) -> dict[str, Any]:
    """The JSON object at an address of this machine."""
    request = urllib.request.Request(url)
    if credentials is not None:
        pair = f"{credentials.username}:{credentials.password}".encode()
        request.add_header("Authorization", f"Basic {b64encode(pair).decode()}")
    with DIRECT.open(request, timeout=5) as answer:
        value: dict[str, Any] = json.load(answer)
        return value


def pages_served(stats: dict[str, Any]) -> int:
    """Index pages and properties, of the site's ``/stats.json``."""
    requests = stats["requests"]
    return int(requests.get("index", 0)) + int(requests.get("property", 0))


class Progress:
    """A look at the crawl every second: how far it is, what the nodes do, as *states* say, and what the items say that
    have landed so far. On a terminal these lines are renewed in their place. Else one is written for each look, and one
    for new items.
    """

    def __init__(self, *, site: str, states: Sequence[Callable[[], str]], total: int, tables: Tables) -> None:
        self.samples = [Sample(seconds=0.0, served=0, pages=0, landed=0)]
        self._site = site
        self._states = states
        self._total = total
        self._tables = tables
        self._looks = 0
        self._landed, self._shifts = 0, f"{'':<11}no items have landed yet"
        self._terminal = sys.stdout.isatty()
        self._shown = 0
        self._started = time.monotonic()
        self._ended: float | None = None
        self._next = self._started + SECONDS_BETWEEN_LOOKS

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is said next goes below the lines, which stay as they are."""
        if self._shown:
            print(flush=True)

    @property
    def seconds(self) -> float:
        """Time from the start to the end of the crawl, or until now."""
        return (self._ended or time.monotonic()) - self._started

    def tick(self) -> None:
        """Look, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN_LOOKS
        self._looks += 1
        self._look(analyse=self._looks % LOOKS_FOR_AN_ANALYSIS == 0)

    def finish(self) -> None:
        """The crawl is over: a last look, and time stands still."""
        self._ended = time.monotonic()
        self._look(analyse=True)

    def _look(self, *, analyse: bool) -> None:
        """Show how it goes; with ``analyse`` new files are read first."""
        new = analyse and self._tables.read()
        if new:
            found = self._tables.analysis()
            self._landed, self._shifts = found.items, top_shifts(found)
        done, states = self._sample(), [state() for state in self._states]
        if self._terminal:
            self._renew([done, self._shifts, *(f"{'':<11}{state}" for state in states)])
        else:
            print(" | ".join([done, *states]) + (f"\n{self._shifts}" if new else ""), flush=True)

    def _sample(self) -> str:
        """Keep how far the crawl is; the same in words."""
        try:
            stats = fetch(f"{self._site}/stats.json")
            served, pages = int(stats["properties_served"]), pages_served(stats)
        except UNREADABLE as error:
            return f"  no progress to show: {error}"
        sample = Sample(seconds=self.seconds, served=served, pages=pages, landed=self._landed)
        self.samples.append(sample)
        return f"{sample.seconds:6.1f} s  {served:,}/{self._total:,} properties  {served / sample.seconds:,.0f}/s"

    def _renew(self, lines: Sequence[str]) -> None:
        """Write the lines over those shown before. More than fit on the screen could not be written over."""
        size = shutil.get_terminal_size()
        lines = [f"\033[K{line[: size.columns - 1]}" for line in lines[: size.lines - 1]]
        up = f"\033[{self._shown - 1}A" if self._shown > 1 else ""
        print(f"\r{up}" + "\n".join(lines), end="", flush=True)
        self._shown = len(lines)


def scrapyd_state(node: str) -> str:
    """What a Scrapyd says about its jobs. On this machine its port is name enough, and the line stays short."""
    name = node.partition("127.0.0.1")[2] or node
    try:
        state = fetch(f"http://{node}/daemonstatus.json", of_url(f"http://{node}"))
        return state_of(name, running=state["running"], pending=state["pending"], done=state["finished"])
    except UNREADABLE:
        return f"{name} does not answer"


def local_state(ledger: Path, folder: Path) -> str:
    """What becomes of the jobs on this machine, as *ledger* and their files in *folder* tell."""
    try:
        with closing(LedgerReader(ledger)) as reader:
            attempts = attempts_of(reader, reader.runs()[-1])
    except (LedgerError, IndexError):
        return f"{LOCAL} has not begun"
    jobs = [(one.job, AttemptState(one.state)) for one in attempts if one.node == LOCAL]
    states, files = Counter(state for _, state in jobs), JobFiles(folder)
    running = sum(files.has_begun(job) for job, state in jobs if state in UNDER_WAY)
    pending = sum(states[state] for state in UNDER_WAY) - running
    return state_of(LOCAL, running=running, pending=pending, done=sum(states[state] for state in OVER))


def state_of(name: str, *, running: int, pending: int, done: int) -> str:
    """How many jobs of a node are where."""
    return f"{name} running {running:,}, pending {pending:,}, done {done:,}"


def top_shifts(analysis: Analysis) -> str:
    """The words that move the price most, from above and from below."""
    shifts = [f"{shift.word} {shift.shift:+.1%}" for shift in analysis.shifts]
    if len(shifts) > 2 * SHIFTS_SHOWN:
        shifts = [*shifts[:SHIFTS_SHOWN], "...", *shifts[-SHIFTS_SHOWN:]]
    return f"{'':<11}{', '.join(shifts)} ({counted(analysis.items, 'item')})"
