"""What operators wish of the crawl while it runs, carried out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from scrapy.crawler import Crawler

from scrapy_distributed.coordinator.closing import Closing
from scrapy_distributed.dispatch.dispatcher import Dispatcher
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.cancel import KILL_SECONDS
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.ledger.wishes import Wish, Wishes
from scrapy_distributed.words import counted, listed, shortened

logger = logging.getLogger(__name__)


class Steering:
    """Does what is wished of the crawl of *crawler*, whose jobs *dispatcher* sends. *closing*: whether it does."""

    def __init__(self, crawler: Crawler, *, dispatcher: Dispatcher, closing: Closing) -> None:
        self.crawler = crawler
        self.wishes = Wishes(dispatcher.ledger.path)
        self.dispatcher = dispatcher
        self.closing = closing
        self._told = ""  # why they can't be read
        self._extra: dict[str, Any] = {"spider": crawler.spider}
        self._ways: dict[str, Callable[[str], Answer]] = {
            "pause": self._pause, "resume": self._resume, "cancel": self._cancel, "drain": self._drain,
            "undrain": self._undrain, "retry": self._retry,
        }  # fmt: skip

    def begin(self) -> None:
        """What was wished of an earlier crawl is void."""
        self._reading(self.wishes.begin)

    def look(self) -> None:
        """Do what was wished since the last time."""
        self._reading(self._look)

    def _look(self) -> None:
        for wish in self.wishes.unanswered():
            self.wishes.answer(wish, self._do(wish).as_text())

    def _reading(self, what: Callable[[], None]) -> None:
        try:
            what()
        except LedgerError as error:
            if str(error) != self._told:
                self._told = str(error)
                logger.warning("What is wished of the crawl can't be read: %s", error, extra=self._extra)

    def _do(self, wish: Wish) -> Answer:
        """Returns what has come of it."""
        if wish.what not in self._ways:
            words = f"this crawl does not know {shortened(wish.what)!r}, only {', '.join(self._ways)}"
            return Answer(lines=(words,), done=False)
        try:
            answer = self._ways[wish.what](wish.about)
        except LedgerError as error:  # nothing was changed
            answer = Answer(lines=(str(error),), done=False)
        logger.info("By an operator's wish: %s", answer.words, extra=self._extra)
        return answer

    def _pause(self, about: str = "") -> Answer:
        assert self.crawler.engine is not None
        self.crawler.engine.pause()
        self.dispatcher.handover.paused = True
        at_work = sum(flight.counts and flight.started for _, flight in self.dispatcher.fleet.flights())
        jobs = f"{counted(at_work, 'job')} at work {'goes' if at_work == 1 else 'go'} on"
        return _said(f"paused: no page is asked for here, and no batch sent; {jobs}, those that wait are taken back")

    def _cancel(self, about: str) -> Answer:
        """Nobody is to blame for jobs that end so, and what they had not settled waits here. *about*: a run."""
        self._check_run(about)
        self._pause()
        flights = [flight for _, flight in self.dispatcher.fleet.flights()]
        for flight in flights:
            flight.dismiss(kill_after=KILL_SECONDS)
        self.dispatcher.pauses.news()
        jobs = counted(len(flights), "job")
        rest = "what they have done by then counts, the rest waits until it is resumed"
        return _said(f"paused, and {jobs} cancelled: {rest}")

    def _resume(self, about: str) -> Answer:
        assert self.crawler.engine is not None
        self.crawler.engine.unpause()
        self.dispatcher.handover.paused = False
        self.dispatcher.send_ready()
        return _said("it goes on")

    def _drain(self, about: str) -> Answer:
        member = self.dispatcher.fleet.by_name(about)
        if member is None:
            return self._unknown(about)
        member.drained = True
        self.dispatcher.pauses.news()
        at_work = sum(flight.counts and flight.started for flight in member.flights.values())
        words = f"{about} gets no more batches; {counted(at_work, 'job')} at work there, those that wait are taken back"
        left = any(not other.drained for other in self.dispatcher.fleet.members)
        return _said(words if left else f"{words}. It was the last node: nothing is sent until one is undrained")

    def _undrain(self, about: str) -> Answer:
        member = self.dispatcher.fleet.by_name(about)
        if member is None:
            return self._unknown(about)
        member.drained = False
        self.dispatcher.send_ready()
        return _said(f"{about} gets batches again")

    def _retry(self, about: str) -> Answer:
        """In about as many batches as there are slots: nothing else may be left for them."""
        ledger, job = self.dispatcher.ledger, self.dispatcher.job
        if not self.closing.takes_more:
            raise LedgerError(f"the crawl is closing ({self.closing.reason}): ask again when it has ended")
        wanted = Wanted.from_text(about)
        self._check_run(wanted.run)
        retried = ledger.control.retry(wanted, parts=self.dispatcher.fleet.slots().all)
        assert self.crawler.stats is not None
        self.crawler.stats.inc_value("distributed/batches", retried.batches)
        self.dispatcher.send_ready()
        lines = [retried.words, *retried.more]
        if retried.begun and job.version:  # workers on this machine load what lies here
            version = f"egg version {job.version}, as this crawl began with it"
            lines.append(f"jobs on Scrapyds run {version}: the next one has what was deployed since")
        return Answer(lines=tuple(lines), done=retried.again > 0, numbers=retried.numbers)

    def _check_run(self, name: str) -> None:
        """Raise ``LedgerError`` where another run is meant: a ledger may have several that are not over."""
        ours = self.dispatcher.ledger.run
        if name not in ("", ours):
            raise LedgerError(
                f"this crawl is of run {ours}, expected {shortened(name)}: the command that began that one goes on with"
                " it; nothing was changed"
            )

    def _unknown(self, about: str) -> Answer:
        names = listed(one.name for one in self.dispatcher.fleet.members)
        return _said(f"no node {shortened(about)!r} in this run, only {names}")


def _said(words: str) -> Answer:
    return Answer(lines=(words,))
