"""``scrapy monitor``, ``scrapy fleet``, ``scrapy batches``, ``scrapy worker``: arguments and printing.

Scrapy imports these modules at every ``scrapy`` call, whatever the command: they import what is heavy when they run.

batch_words: what ``scrapy batches`` says.
batch_account: how a run stands, for its check.
batch_list: how a run stands, and its batches.
batch_log: what the jobs of a batch have logged; job_log: that of one, in parts.
batch_retry: what goes out again.
batch_export: what has come home, written once more.
ledgers: which runs a command is about; operating: what is done with one of a ledger in a file. Of shared runs:
shared_reader (in_thread: asked from everywhere), shared_operating, log_tails.
wishing: what an operator wishes of a crawl that runs; cancel: its jobs are to end as well, now.
deploy: the project, sent to all nodes; versions: which ones are there.
doctor: what ``scrapy fleet doctor`` finds without a node; doctor_local: at workers on this machine; doctor_shared: at a
Redis, and at the workers that have joined its runs; probe: the job that it sends to every node.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from scrapy.exceptions import UsageError

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from scrapy_distributed.fleet.addresses import Target
    from scrapy_distributed.fleet.node import NodeAddress
    from scrapy_distributed.shared.address import RedisAddress

T = TypeVar("T")


def at_least(kind: Callable[[str], T], minimum: float) -> Callable[[str], T]:
    """An argparse type: *kind* of the text, not below *minimum*."""

    def read(text: str) -> T:
        value = kind(text)
        if not minimum <= float(value) < float("inf"):  # type: ignore[arg-type]
            raise argparse.ArgumentTypeError(f"{text!r}, expected at least {minimum}")
        return value

    read.__name__ = kind.__name__  # what argparse calls it when kind() fails
    return read


def refuse_options(args: Sequence[str]) -> None:
    """Raise ``UsageError`` for an option that the command does not have: Scrapy leaves these among the arguments."""
    for arg in args:
        if arg.startswith("-"):
            raise UsageError(f"unknown option {arg}", print_help=False)


class Chosen(NamedTuple):
    """The nodes that a command is about: Scrapyds, and so many workers at once on this machine; 0: it is none.
    *shared*: the Redis with the runs that others join."""

    scrapyds: list[NodeAddress]
    slots: int
    shared: RedisAddress | None = None


def chosen_nodes(names: Sequence[str], settings: BaseSettings, targets: Mapping[str, Target]) -> Chosen:
    """Those that *names* say, else ``DISTRIBUTED_TARGET_HOSTS``, else all *targets*. Raises ``ConfigError``."""
    from scrapy_distributed.config.config import Config
    from scrapy_distributed.coordinator.shared_hosts import is_shared, shared_hosts
    from scrapy_distributed.fleet.addresses import addresses, all_addresses
    from scrapy_distributed.fleet.local_slots import local_slots

    hosts = names or Config.from_settings(settings).target_hosts
    if is_shared(hosts):
        address, slots = shared_hosts(hosts)
        return Chosen([], slots, address)
    if not hosts:
        return Chosen(all_addresses(targets), 0)
    return Chosen(addresses(hosts, targets=targets), local_slots(hosts, targets))


def ledger_paths(settings: BaseSettings, given: str | None = None) -> list[Path]:
    """The ledger *given*, else that of ``DISTRIBUTED_LEDGER``, which need not be there; else all of the project. Of a
    link the file that it is of: that is what a crawl locks, and what is beside it is there."""
    from scrapy_distributed.coordinator.identity import ledgers_folder

    named = given or settings.get("DISTRIBUTED_LEDGER")
    found = [Path(named)] if named else sorted(ledgers_folder().glob("*.sqlite"))
    return [Path(os.path.realpath(path)) if path.is_symlink() else path for path in found]


def shared_address(settings: BaseSettings, given: str | None = None) -> RedisAddress | None:
    """Where the shared runs are that are meant: by the ledger *given*, else by ``DISTRIBUTED_TARGET_HOSTS``; ``None``:
    ledgers in files are. Raises ``ConfigError``."""
    from scrapy_distributed.coordinator.shared_hosts import is_shared, shared_hosts

    hosts = settings.getlist("DISTRIBUTED_TARGET_HOSTS") if given is None else [given]
    return shared_hosts(hosts).address if is_shared(hosts) else None


def run_in_reactor(main: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
    """Run the reactor until *main* ends, and return what it returned; ``None`` if Ctrl-C or TERM came first.

    Twisted's ``task.react`` would end the process."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.error import ReactorNotRunning
    from twisted.python.failure import Failure

    loop: Any = reactor
    ended: list[T | Failure] = []

    def end(result: T | Failure) -> None:
        ended.append(result)
        if loop.running:
            with suppress(ReactorNotRunning):  # Ctrl-C has stopped it, and what it has to await has made *main* end
                loop.stop()

    loop.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addBoth(end))
    loop.run()
    if not ended:
        return None
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    return ended[0]
