"""Every request in exactly one state, whatever the order of the transitions."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from ledgers import IDENTITY, cut, divert, found_of, key, queued, receipt, rows_of

from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt, AttemptState, Blame, Fate
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.payload import decode_payload

ENDS = {"unsent", "accepted", "rejected"}
# As in scrapy_distributed/ledger/states.py; what a step leaves alone keeps its state.
ARROWS = {
    "batch": {
        "": {"ready"}, "ready": {"ready", "in flight", "settled"}, "in flight": {"in flight", "ready", "settled"},
        "settled": {"settled"},
    },
    "attempt": {
        "": {"bound"}, "bound": {"bound", "sent", "unknown"} | ENDS, "sent": {"sent", "unknown"} | ENDS,
        "unknown": {"unknown"} | ENDS, **{end: {end} for end in ENDS}, "accepted": {"accepted", "rejected"},
    },
}  # fmt: skip


class AnyOrder(RuleBasedStateMachine):
    """Plays every transition in any order that a coordinator can come to: halves, orphans, other nodes, retries."""

    MAX_ATTEMPTS = 2

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.open_batch: list[str] = []
        self.keys: set[int] = set()
        self.crawled: Counter[str] = Counter()
        self.tried_again: Counter[str] = Counter()
        self.pages: set[int] = set()  # of which items have come home
        # What has come home, by batch and attempt: its name in the spool, the requests crawled, the pages.
        self.home: dict[tuple[int, int], tuple[str, list[str], set[int]]] = {}
        self.before: dict[tuple[str, ...], str] = {}  # batch or attempt -> state

    def teardown(self) -> None:
        try:
            self.close(keep=0)
            self.ledger.intake.cut_again(5, all_of_it=True)
            for _ in range(1000):
                for attempt in self.ledger.bookings.live():
                    self.ledger.verdicts.reject(attempt, "the end", counts=True, max_attempts=self.MAX_ATTEMPTS)
                ready = self.ledger.bookings.ready()
                if not ready:
                    break
                self.ledger.bookings.bind(ready[0][0], "last")
            self.holds()
            assert self.ledger.account.settled()
            assert self.ledger.account.balance().settled
        finally:
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(numbers=st.lists(st.integers(0, 60), max_size=8))
    def divert(self, numbers: list[int]) -> None:
        new = divert(self.ledger, *numbers)
        self.open_batch += new
        assert len(new) == len(set(numbers) - self.keys - self.pages)
        self.keys |= set(numbers) - self.pages

    @rule(keep=st.integers(0, 3))
    def close(self, keep: int) -> None:
        middle = max(0, len(self.open_batch) - keep)
        closed, self.open_batch = self.open_batch[:middle], self.open_batch[middle:]
        middle = len(closed) // 2
        cut(self.ledger, *(part for part in (closed[:middle], closed[middle:]) if part))

    @rule(size=st.integers(1, 4), all_of_it=st.booleans())
    def cut_again(self, size: int, all_of_it: bool) -> None:
        made = self.ledger.intake.cut_again(size, all_of_it=all_of_it)
        (left,) = self.ledger.store.db.execute("SELECT count(*) FROM queued WHERE avoid IS NOT NULL").fetchone()
        assert not (all_of_it and left)
        assert made >= 0

    @precondition(lambda self: bool(self.ledger.bookings.ready()))
    @rule(node=st.sampled_from(["n1", "n2"]))
    def bind(self, node: str) -> None:
        ready = self.ledger.bookings.ready()
        assert ready
        attempt, payload = self.ledger.bookings.bind(ready[0][0], node)
        assert len(decode_payload(payload)) == attempt.size > 0

    def pick(self, data: st.DataObject, *states: AttemptState) -> Attempt | None:
        live = [attempt for attempt in self.ledger.bookings.live() if attempt.state in states]
        return data.draw(st.sampled_from(live)) if live else None

    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        if attempt := self.pick(data, AttemptState.BOUND):
            self.ledger.bookings.sent(attempt)

    @rule(data=st.data())
    def unsent(self, data: st.DataObject) -> None:
        if attempt := self.pick(data, AttemptState.BOUND, AttemptState.UNKNOWN):
            self.ledger.verdicts.unsent(attempt, "refused")

    def check(self, fate: Fate, attempt: Attempt, *, counted: bool) -> None:
        assert counted or fate in (Fate.AGAIN, Fate.DIVIDED, Fate.SETTLED)
        ready = [
            number for number, _ in self.ledger.store.db.execute("SELECT number, 0 FROM batch WHERE state = 'ready'")
        ]
        if fate is Fate.AGAIN:
            others = [live.batch for live in self.ledger.bookings.live() if live.state is not AttemptState.UNKNOWN]
            assert (attempt.batch in ready) != (attempt.batch in others)
        else:
            assert attempt.batch not in ready

    @rule(data=st.data(), counted=st.booleans(), parts=st.integers(1, 3))
    def lose(self, data: st.DataObject, counted: bool, parts: int) -> None:
        if attempt := self.pick(data, AttemptState.BOUND, AttemptState.SENT):
            most = self.MAX_ATTEMPTS
            fate = self.ledger.verdicts.lose(attempt, "silent", counts=counted, max_attempts=most, parts=parts)
            self.check(fate, attempt, counted=counted)

    @rule(data=st.data(), counted=st.booleans())
    def reject(self, data: st.DataObject, counted: bool) -> None:
        if attempt := self.pick(data, *AttemptState):
            fate = self.ledger.verdicts.reject(attempt, "no receipt", counts=counted, max_attempts=self.MAX_ATTEMPTS)
            self.check(fate, attempt, counted=counted and attempt.state is not AttemptState.UNKNOWN)

    @rule(
        data=st.data(), clean=st.booleans() | st.just(True), stored=st.booleans() | st.just(True),
        found=st.lists(st.integers(0, 60), max_size=3), pages=st.none() | st.sets(st.integers(50, 110), max_size=3),
    )  # fmt: skip
    def settle(self, data: st.DataObject, clean: bool, stored: bool, found: list[int], pages: set[int] | None) -> None:
        attempt = self.pick(data, *AttemptState)
        if attempt is None:
            return
        everything = (1 << attempt.size) - 1
        settled = data.draw(st.just(everything) | st.integers(0, everything))
        outcomes: dict[str, list[int]] = {"crawled": [], "failed": [], "filtered": []}
        for position in bits(settled):
            outcomes[data.draw(st.sampled_from(["crawled", *outcomes]))].append(position)
        failed = sum(1 << position for position in outcomes["failed"])
        may, wanted = failed & data.draw(st.integers(0, everything)), data.draw(st.integers(0, everything))
        report = receipt(attempt, settled, clean=clean, stored=stored, failed={"dns": outcomes["failed"]},
                         filtered={"offsite": outcomes["filtered"]}, again=may)  # fmt: skip
        elements = self.elements(attempt.batch)
        own = list(bits(attempt.positions))
        before = self.ledger.account.balance()
        targets = found_of(found) if found else []
        brought, haul = self.bring(pages)
        if objected := self.ledger.verdicts.objection(attempt, report):
            rows = rows_of(self.ledger.store.db)
            settlement = self.ledger.verdicts.settle(
                attempt, report, max_attempts=self.MAX_ATTEMPTS, found=targets, haul=haul, again=wanted
            )
            self.ledger.harvest.leave_pages(haul.pages if haul else ())
            assert settlement == objected
            assert rows_of(self.ledger.store.db) == rows
            assert objected[1] is Blame.NOBODY or not (clean and stored)
            return
        assert clean
        assert stored
        settlement = self.ledger.verdicts.settle(
            attempt, report, max_attempts=self.MAX_ATTEMPTS, found=targets, haul=haul, again=wanted
        )  # fmt: skip
        self.pages |= brought
        if haul is not None:
            crawled = [elements[own[position]] for position in outcomes["crawled"]]
            self.home[attempt.batch, attempt.number] = (attempt.spool_name, crawled, brought)
        new = [body for _, bodies in iter(self.ledger.intake.divert_found, None) for body in bodies]
        after = self.ledger.account.balance()
        self.check(settlement.fate, attempt, counted=attempt.state is not AttemptState.UNKNOWN and not settled)
        assert len(new) == len(set(found) - self.keys - self.pages)
        self.open_batch += new
        self.keys |= set(found) - self.pages
        self.crawled.update(elements[own[position]] for position in outcomes["crawled"])
        assert settlement.again in (0, (may & wanted).bit_count())
        if settlement.again:
            self.tried_again.update(elements[own[position]] for position in bits(may & wanted))
        assert after.failed - before.failed == len(outcomes["failed"]) - settlement.again
        assert after.filtered - before.filtered == len(outcomes["filtered"])

    def bring(self, pages: set[int] | None) -> tuple[set[int], Haul | None]:
        """Those of *pages* whose items come home, if items do at all."""
        brought = {page for page in pages or () if self.ledger.harvest.is_new_page(key(page))}
        assert brought == (pages or set()) - self.keys - self.pages
        keys = [key(page) for page in brought]
        assert self.ledger.harvest.enter_pages(keys)
        return brought, None if pages is None else Haul(items=1, pages=keys)

    def elements(self, batch: int) -> list[str]:
        (payload,) = self.ledger.store.db.execute("SELECT payload FROM batch WHERE number = ?", (batch,)).fetchone()
        return decode_payload(payload)

    @rule(reason=st.sampled_from(["dns", "no receipt", "silent", "*"]), begun=st.booleans(), parts=st.integers(1, 3))
    def retry(self, reason: str, begun: bool, parts: int) -> None:
        before = self.ledger.account.balance()
        wanted = Wanted(reason=reason, begun=begun)
        taken, left_out, had_begun, batches = self.ledger.control.retry(wanted, parts=parts)
        after = self.ledger.account.balance()
        assert (left_out if begun else had_begun) == 0
        assert bool(taken) <= batches <= taken
        assert after.queued - before.queued == before.failed + before.dead - after.failed - after.dead == taken
        self.tried_again.clear()  # what a retry brings back may be tried elsewhere once more

    @precondition(lambda self: self.home)
    @rule(data=st.data())
    def lose_items(self, data: st.DataObject) -> None:
        name, crawled, pages = self.home.pop(data.draw(st.sampled_from(sorted(self.home))))
        before = self.ledger.account.balance()
        taken = self.ledger.control.lose_items([name])
        after = self.ledger.account.balance()
        assert before.crawled - after.crawled == len(crawled)
        assert after.queued + after.in_flight - before.queued - before.in_flight == before.ended - after.ended == taken
        self.crawled.subtract(crawled)
        self.pages -= pages
        self.restart()  # another process does this

    @precondition(lambda self: not self.open_batch and self.ledger.account.settled())
    @rule()
    def end_and_retry(self) -> None:
        self.ledger.intake.walked()
        assert self.ledger.account.end()
        balance = self.ledger.account.balance()
        self.ledger.close()
        self.ledger = Ledger(self.folder / "s.sqlite")  # another process does this
        taken, left_out, *_ = self.ledger.control.retry(Wanted())
        assert taken + left_out == balance.failed + balance.dead
        if not taken:
            self.ledger.store.db.execute("UPDATE run SET ended = NULL")
        self.ledger.intake.walk_on()
        self.restart()
        self.tried_again.clear()

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "s.sqlite")
        assert self.ledger.begin(IDENTITY, resume=True)
        assert queued(self.ledger) == self.open_batch
        assert self.ledger.intake.open_batch() == (len(self.open_batch), len("".join(self.open_batch)))

    @invariant()
    def holds(self) -> None:
        balance = self.ledger.account.balance()
        assert balance.holds, str(balance)
        assert balance.diverted == len(self.keys)
        assert balance.crawled == sum(self.crawled.values())
        (again,) = self.ledger.store.db.execute("SELECT coalesce(sum(size), 0) FROM queued WHERE avoid IS NOT NULL")
        waiting = len(self.open_batch) + again[0]
        assert self.ledger.account.settled() == (balance.queued == balance.in_flight == waiting == 0)
        assert not (self.open_batch and self.ledger.account.end())
        current = [
            attempt.batch for attempt in self.ledger.bookings.live() if attempt.state is not AttemptState.UNKNOWN
        ]
        assert len(current) == len(set(current))
        assert max(self.tried_again.values(), default=0) <= 1

    @invariant()
    def what_has_come_home_is_known(self) -> None:
        assert list(self.ledger.harvest.files()) == [self.home[where][0] for where in sorted(self.home)]
        kept = [found for (found,) in self.ledger.store.db.execute("SELECT key FROM page ORDER BY key")]
        assert kept == sorted(map(key, self.pages))
        assert all(not self.ledger.harvest.is_new_page(key(page)) for page in self.pages | self.keys)

    @invariant()
    def states_follow_the_arrows(self) -> None:
        db = self.ledger.store.db
        now = {("batch", number): state for number, state in db.execute("SELECT number, state FROM batch")}
        now |= {("attempt", *one): state for *one, state in db.execute("SELECT batch, number, state FROM attempt")}
        for one, state in now.items():
            assert state in ARROWS[one[0]][self.before.get(one, "")], f"{one}: from {self.before.get(one)} to {state}"
        self.before = now

    @invariant()
    def every_request_is_in_exactly_one_place(self) -> None:
        db = self.ledger.store.db
        places = Counter(self.crawled)
        for (bodies,) in db.execute("SELECT bodies FROM queued"):
            places.update(json.loads(bodies))
        for number, size, settled in db.execute("SELECT number, size, settled FROM batch").fetchall():
            left = ((1 << size) - 1) & ~int.from_bytes(settled, "little")
            elements = self.elements(number)
            places.update(elements[position] for position in bits(left))
            positions = db.execute("SELECT position FROM outcome WHERE batch = ?", (number,))
            places.update(elements[position] for (position,) in positions)
        assert places == Counter(f"http://a/{number}" for number in self.keys)


def test_transitions_in_any_order_keep_each_request_in_one_place() -> None:
    examples = settings.default.max_examples * 3 // 5
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=examples, stateful_step_count=40))
