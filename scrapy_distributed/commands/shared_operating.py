"""What is done with a shared run: its server is told, and its workers hear of it with their next sign of life."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scrapy_distributed.commands.batch_words import title
from scrapy_distributed.commands.log_tails import LogTails
from scrapy_distributed.commands.operating import AtHome
from scrapy_distributed.commands.shared_reader import STREAM
from scrapy_distributed.commands.wishing import print_answer
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.spooled import NOT_KEPT
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.retrying import Retrying
from scrapy_distributed.words import counted, escaped

if TYPE_CHECKING:
    from scrapy_distributed.commands.shared_reader import SharedReader
    from scrapy_distributed.ledger.records import AttemptRecord, RunRecord
    from scrapy_distributed.ledger.wanted import Wanted
    from scrapy_distributed.shared.intake import State

CANCELLED = "cancelled"  # why a run was stopped


class SharedOperator:
    """For *run* of *reader*."""

    def __init__(self, reader: SharedReader, run: RunRecord) -> None:
        self.reader = reader
        self.run = run
        self.ask = reader.ledgers.ask
        self._of_run = (reader.ledgers.server, reader.ledgers.project, run.name)

    def wish(self, what: str, *, as_json: bool) -> int:
        state, control = self._state(), Control(*self._of_run)
        if state.ended is not None:
            raise LedgerError(f"run {self.run.name} is over, so there is nothing to {what}")
        at_work = f"jobs at work ({state.at_work:,})"
        if what == "pause":
            self.ask(control.pause())
            words = f"paused: workers get no batch of it; {at_work} go on, and so does the coordinator's own crawl"
        elif what == "resume":
            self.ask(control.resume())
            words = "resumed: workers get batches of it"
        else:
            self.ask(control.stop(CANCELLED))
            words = (
                f"cancelled: workers get no batch of it; {at_work} are told to end, and what they have done counts. The"
                " rest is not crawled: scrapy batches retry --state 'not crawled' lets it go on"
            )
        return print_answer(self.reader, self.run, Answer(lines=(words,)), as_json=as_json)

    def retry(self, wanted: Wanted, *, as_json: bool) -> int:
        before = self._state()
        retrying = Retrying(*self._of_run)
        retried = self.ask(retrying.retry(wanted))
        lines = [retried.words, *retried.more]
        if retried.again and before.ended is not None:
            stopped = before.stopped is not None
            lines += self._opened(self.ask(retrying.cut_short()) if stopped else 0, stopped=stopped)
        answer = Answer(lines=tuple(lines), done=retried.again > 0, numbers=retried.numbers)
        return print_answer(self.reader, self.run, answer, as_json=as_json)

    def _opened(self, cut_short: int, *, stopped: bool) -> list[str]:
        lines = []
        if stopped and self._streams:
            lines.append(
                "its own crawl begins anew: what it scrapes of no page, or of one with dont_filter, comes into the"
                " stream once more"
            )
        if cut_short:
            lines.append(
                f"{counted(cut_short, 'job')} had ended early and count with items of requests that go out again: these"
                " items may come twice"
            )
        command = f"scrapy crawl {escaped(self.run.identity['spider'])}, with its arguments"
        lines.append(
            "workers that have the code of its beginning go on with it; the command that began it has it go on with the"
            f" code that is here, and writes the result: {command}"
        )
        return lines

    def retry_lost_items(self, *, as_json: bool) -> int:
        raise LedgerError(f"run {self.run.name}: found --lost-items, and a shared run can't do that: {NOT_KEPT}")

    def forget(self, *, force: bool, as_json: bool) -> int:
        said = title(self.reader, self.run)
        entries = self.ask(Control(*self._of_run).forget(force=force))
        if as_json:
            answer = Answer(lines=("forgotten",), numbers={"entries": entries})
            return print_answer(self.reader, self.run, answer, as_json=True)
        stream = f", where its stream had {counted(entries, 'entry', 'entries')}" if self._streams else ""
        print(f"{said}\n  forgotten: nothing of it is left on the server{stream}")
        return 0

    def log(self, label: str, *, follow: bool, as_json: bool) -> int:
        batch, _, number = label.partition(".")
        attempts = [one for one in self.attempts(int(batch)) if not number or one.number == int(number)]
        if not attempts:
            raise LedgerError(
                f"{self.reader.place}: found no attempt {label} in run {self.run.name}; list and show tell what it has"
            )
        account = self.reader.account(self.run.id)
        kept = [self.ask(account.log_tail(int(batch), one.number)) for one in attempts]
        tails = LogTails(self.run.name, int(batch), attempts, kept)
        return tails.show_as_json() if as_json else tails.follow() if follow else tails.show()

    def attempts(self, batch: int) -> Sequence[AttemptRecord]:
        return self.reader.attempts(self.run, batch)

    def at_home(self) -> AtHome:
        if self._streams:
            stream = self.reader.account(self.run.id).keys.of(self.run.name, "items")
            raise LedgerError(
                f"run {self.run.name}: found items in the stream {stream}, expected such that came home: any client of"
                " Redis reads them there (XRANGE, XREAD)"
            )
        beside, files = self.reader.beside, self.reader.at_home(self.run.id).files
        home = self.reader.field(self.run.id, "home").partition(" ")[2]
        if home and not files:
            raise LedgerError(
                f"run {self.run.name}: found nothing of it here, on {socket.gethostname()} beside {beside}, expected"
                f" the items that came home: they do to {escaped(home)}; ask there"
            )
        return AtHome(beside, files, NOT_KEPT)

    @property
    def _streams(self) -> bool:
        return bool(self.run.identity.get("items") == STREAM)

    def _state(self) -> State:
        return self.ask(self.reader.account(self.run.id).state())
