"""The runs of a project in a Redis or Valkey, as commands read them: a ledger for each spider that has some."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from scrapy_distributed.commands.in_thread import InThread
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.coordinator.home_journal import AtHome, at_home
from scrapy_distributed.coordinator.identity import ledger_of
from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.balance import Balance, Losses, Raised, Results
from scrapy_distributed.ledger.reader import most_items
from scrapy_distributed.ledger.records import (
    AcceptedAttempt,
    AttemptRecord,
    BatchRecord,
    OutcomeRecord,
    RunRecord,
)
from scrapy_distributed.password import without_password
from scrapy_distributed.shared.account import Account, runs
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.job_template import JobTemplate

T = TypeVar("T")
STREAM = ItemsGo.STREAM.value


class SharedLedgers:
    """A connection to the server at *address*, for the runs of *project*, whose items come home beside the file
    *ledger*, or, if that is '', beside one of its spider. Everything here raises ``LedgerError`` where the server can't
    be used."""

    def __init__(self, address: RedisAddress, project: str, *, ledger: str) -> None:
        self.address = address
        self.project = project
        self.ledger = ledger
        self._thread = InThread()
        self.server = self._thread.ask(_opened(address))

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        try:
            return self._thread.ask(question)
        except LedgerUnavailableError as error:
            raise LedgerError(f"{error}; ask again") from None

    def each(self, values: AsyncIterator[T]) -> Iterator[T]:
        try:
            yield from self._thread.each(values)
        except LedgerUnavailableError as error:
            raise LedgerError(f"{error}; ask again") from None

    def by_spider(self) -> list[SharedReader]:
        """A ledger for each spider, that of the last run last."""
        of_spider: dict[str, list[RunRecord]] = defaultdict(list)
        for run in self.ask(runs(self.server, self.project)):
            of_spider[run.identity["spider"]].append(run)
        return [SharedReader(self, spider, own) for spider, own in sorted(of_spider.items(), key=_last)]

    def close(self) -> None:
        self._thread.close(self.server.close())


def _last(pair: tuple[str, list[RunRecord]]) -> int:
    return pair[1][-1].id


async def _opened(address: RedisAddress) -> Server:
    return Server(address)


class SharedReader:
    """The runs of one *spider*, oldest first; as ``ledger.reader`` shows those in a file."""

    def __init__(self, ledgers: SharedLedgers, spider: str, own: list[RunRecord]) -> None:
        self.ledgers = ledgers
        self.spider = spider
        self.place = str(ledgers.address)
        self.beside = Path(ledgers.ledger or ledger_of(spider)).resolve()
        self._own = own
        self._names = {run.id: run.name for run in own}
        self._children_of: Callable[[int], dict[int, list[int]]] = cache(self._all_children)

    def account(self, run: int) -> Account:
        return Account(self.ledgers.server, self.ledgers.project, self._names[run])

    def runs(self) -> list[RunRecord]:
        return self._own

    def balance(self, run: int) -> Balance:
        return self.ledgers.ask(self.account(run).balance())

    def losses(self, run: int) -> Losses:
        return self.ledgers.ask(self.account(run).losses())

    def results(self, run: RunRecord) -> Results | None:
        if run.identity.get("items") != STREAM:
            return None
        return self.ledgers.ask(self.account(run.id).results())

    def raised(self, run: int) -> list[Raised]:
        return self.ledgers.ask(self.account(run).raised())

    def each_batch(self, run: int, first: int = 1, last: int | None = None) -> Iterator[BatchRecord]:
        return self.ledgers.each(self.account(run).batches(first, last))

    def batch_counts(self, run: int) -> list[tuple[str, str | None, int]]:
        counts = Counter((batch.state, batch.node) for batch in self.each_batch(run))
        return [(state, node, number) for (state, node), number in counts.items()]

    def children(self, run: int, batch: int) -> list[int]:
        if not any(one.moved for one in self.each_batch(run, batch, batch)):
            return []  # nobody need look at all the others
        return self._children_of(run).get(batch, [])

    def attempts(self, run: RunRecord, batch: int) -> list[AttemptRecord]:
        return self.ledgers.ask(self.account(run.id).attempts(batch))

    def outcomes(
        self, run: int, *, batch: int | None = None, wanted: Callable[[str, str], bool] = lambda state, reason: True
    ) -> Iterator[OutcomeRecord]:
        return self.ledgers.each(self.account(run).outcomes(batch=batch, wanted=wanted))

    def not_crawled(self, run: RunRecord) -> Iterator[OutcomeRecord]:
        return self.ledgers.each(self.account(run.id).not_crawled())

    def accepted(self, run: int) -> list[AcceptedAttempt]:
        """As batch 0 come the feeds of what the coordinator has scraped itself, if that was here."""
        own = [
            AcceptedAttempt(batch=0, number=number, items=most_items(files), feeds=files)
            for number, files in enumerate(self.at_home(run).feeds, 1)
        ]
        return own + self.ledgers.ask(self.account(run).accepted())

    def at_home(self, run: int) -> AtHome:
        return at_home(Spool(self.beside, object).beside / self._names[run])

    def feeds(self, run: int) -> list[str]:
        return [file.url for attempt in self.accepted(run) for file in attempt.feeds]

    def feed_urls(self, run: int) -> list[str]:
        try:
            settings = JobTemplate.from_json(self.field(run, "template")).settings
            urls = [*json.loads(settings.get("FEEDS", "{}")), settings.get("FEED_URI", "")]
        except ValueError as error:
            raise LedgerError(f"{self.place}: run {self._names[run]}: {error}") from None
        return [without_password(url) for url in urls if url]

    def field(self, run: int, name: str) -> str:
        """What the server keeps of *run* under this *name*, '' where that is nothing."""
        key = self.account(run).keys.of(self._names[run])
        value: bytes | None = self.ledgers.ask(self.ledgers.server.command("HGET", key, name))
        return (value or b"").decode()

    def close(self) -> None:
        """That of the connection is its owner's affair."""

    def _all_children(self, run: int) -> dict[int, list[int]]:
        children: dict[int, list[int]] = defaultdict(list)
        for batch in self.each_batch(run):
            if batch.parent is not None:
                children[batch.parent].append(batch.number)
        return children
