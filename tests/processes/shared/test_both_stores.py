"""The same steps on both stores of a run, SQLite and Redis, in any order: after each of them the same balance, the same
batches, and each request in the same place."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from awaiting import run
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from ledgers import IDENTITY, all_ready, divert, found_of, queued, receipt
from shared_runs import SharedRun
from shared_runs import found_of as entries_of
from valkey_child import ValkeyChild

from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.rules import Objection
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt, AttemptState, Blame
from scrapy_distributed.shared import portion
from scrapy_distributed.shared.claims import Claimed, Nothing
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.payload import decode_payload

MAX_ATTEMPTS = 3
STEPS = Counter(add=3, claim=5, renew=1, lose=1, reject=1, give_back=1, settle=6, go_on_in_another_process=1)
WORKERS = st.sampled_from(["w1", "w2"])
MOSTLY = st.sampled_from([True] * 5 + [False])
BATCH = ("state", "size", "avoid", "crawled", "failed", "filtered", "dead", "moved", "attempts", "node", "items")


class BothStores(RuleBasedStateMachine):
    """What the run in Redis does is done to that in SQLite as well: there the coordinator chooses, here who claims."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.reader = LedgerReader(self.ledger.path)
        self.shared = run(SharedRun.begin(self.server, max_attempts=MAX_ATTEMPTS))
        self.batches: dict[int, int] = {}  # of Redis -> of SQLite
        self.claimed: list[tuple[Claimed, Attempt]] = []  # all that may still be asked about
        self.numbers = 100

    def teardown(self) -> None:
        try:
            run(self.shared.intake.walked())
            self.ledger.intake.walked()
            for turn in range(1000):
                for pair in self.claimed[:]:
                    self._crawl(pair)
                if not self._claim(f"w{turn % 2 + 1}", 100) and not self._claim(f"w{2 - turn % 2}", 100):
                    break
            state = run(self.shared.intake.state())
            assert state.ended is not None
            assert self.ledger.account.end()
            assert state.balance == self.ledger.account.balance()
            self.is_the_same()
            run(self._the_same_has_ended())
        finally:
            self.reader.close()
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One rule: of several, Hypothesis leaves most out of each example."""
        action = data.draw(st.sampled_from([*STEPS.elements()]))
        getattr(self, action)(data)

    def add(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.integers(0, 60), max_size=12))
        assert run(self.shared.add(*numbers)) == divert(self.ledger, *numbers)

    def claim(self, data: st.DataObject) -> None:
        self._claim(data.draw(WORKERS), data.draw(st.integers(1, 6)))

    def _claim(self, name: str, size: int) -> bool:
        claimed = run(self.shared.worker(name).claim(lambda spider: size))
        if isinstance(claimed, Nothing):
            return False
        number = claimed.attempt.batch
        if number not in self.batches:
            assert claimed.attempt.number == 1
            known = {batch for batch, _ in all_ready(self.ledger)}
            self.ledger.intake.cut([claimed.batch.size])
            ((self.batches[number], _),) = [one for one in all_ready(self.ledger) if one[0] not in known]
        attempt, payload = self.ledger.bookings.bind(self.batches[number], name)
        self.ledger.bookings.sent(attempt)
        assert decode_payload(claimed.payload) == decode_payload(payload)
        assert (claimed.attempt.number, claimed.attempt.positions) == (attempt.number, attempt.positions)
        self.claimed.append((claimed, attempt))
        return True

    def pick(self, data: st.DataObject) -> tuple[Claimed, Attempt]:
        """One of those that were claimed; there is always one."""
        if not self.claimed:
            numbers = range(self.numbers, self.numbers + 10)
            assert run(self.shared.add(*numbers)) == divert(self.ledger, *numbers)
            self.numbers += 10
            assert self._claim("w1", 4) or self._claim("w2", 4)
        return data.draw(st.sampled_from(self.claimed))

    def _map_children(self) -> None:
        """Batches that were made of others: the same requests are in the same batch."""
        self.ledger.intake.cut_again(1000, all_of_it=True)
        theirs = {batch: self._elements(batch) for batch, _ in all_ready(self.ledger)
                  if batch not in self.batches.values()}  # fmt: skip
        for number in run(self.shared.server.command("LRANGE", self.shared.key("again"), 0, -1)):
            if int(number) not in self.batches:
                (size, parts) = run(
                    self.shared.server.command("HMGET", self.shared.key("batch", int(number)), "size", "parts")
                )
                portions = [
                    run(self.shared.server.command("HGET", self.shared.key("portion"), part.partition(b":")[0]))
                    for part in parts.split(b",")
                ]
                bodies = [body.strip('"') for body in portion.bodies_of(parts.split(b","), portions)]
                assert len(bodies) == int(size)
                (self.batches[int(number)],) = [batch for batch, elements in theirs.items() if elements == bodies]

    def _elements(self, batch: int) -> list[Any]:
        (payload,) = self.ledger.store.db.execute("SELECT payload FROM batch WHERE number = ?", (batch,)).fetchone()
        return decode_payload(payload)

    def _state(self, attempt: Attempt) -> AttemptState:
        where = (attempt.batch, attempt.number)
        row = self.ledger.store.db.execute("SELECT state FROM attempt WHERE batch = ? AND number = ?", where).fetchone()
        return AttemptState(row[0])

    def renew(self, data: st.DataObject) -> None:
        claimed, attempt = self.pick(data)
        wishes = run(self.shared.worker(claimed.attempt.node).renew(claimed, {"settled": 1}))
        assert (wishes is not None) == (self._state(attempt) is AttemptState.SENT)

    def lose(self, data: st.DataObject) -> None:
        self._lose(*self.pick(data))

    def _lose(self, claimed: Claimed, attempt: Attempt) -> None:
        if self._state(attempt) is AttemptState.SENT:
            run(self.shared.end_lease(claimed))
            run(self.shared.worker()._attempts.lose(claimed.run, claimed.token, 1.0))
            reason = f"no sign of life on {attempt.node}"
            self.ledger.verdicts.lose(attempt, reason, counts=True, max_attempts=MAX_ATTEMPTS)
            self._map_children()

    def reject(self, data: st.DataObject) -> None:
        self._reject(self.pick(data), counted=data.draw(st.booleans()))

    def _crawl(self, pair: tuple[Claimed, Attempt]) -> None:
        """All that it was sent, if it still counts."""
        claimed, attempt = pair
        if self._state(attempt) is AttemptState.SENT:
            settled = run(self.shared.worker(claimed.attempt.node).settle(claimed, receipt(claimed.attempt)))
            assert settled == self.ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=MAX_ATTEMPTS)
            self.claimed.remove(pair)
        else:
            self._reject(pair, counted=True)

    def _reject(self, pair: tuple[Claimed, Attempt], *, counted: bool) -> None:
        claimed, attempt = pair
        was_live = self._state(attempt) is AttemptState.SENT
        for _ in range(2):  # the answer may be lost
            fate = run(self.shared.worker(claimed.attempt.node).reject(claimed, "no receipt", counts=counted))
        theirs = self.ledger.verdicts.reject(attempt, "no receipt", counts=counted, max_attempts=MAX_ATTEMPTS)
        if was_live:
            assert fate is theirs
        self.claimed.remove(pair)
        self._map_children()

    def give_back(self, data: st.DataObject) -> None:
        claimed, attempt = pair = self.pick(data)
        run(self.shared.worker(claimed.attempt.node).give_back(claimed, "refused"))
        self.ledger.verdicts.unsent(attempt, "refused")
        self.claimed.remove(pair)
        self._map_children()

    def settle(self, data: st.DataObject) -> None:
        claimed, attempt = pair = self.pick(data)
        clean, stored, counted = data.draw(MOSTLY), data.draw(MOSTLY), data.draw(st.booleans())
        found = data.draw(st.lists(st.integers(0, 80), max_size=3))
        late = data.draw(st.sampled_from(["", "", "its batch waits", "another has its batch"]))
        if late:
            self._lose(claimed, attempt)
        if late == "another has its batch":
            self._claim("w2" if attempt.node == "w1" else "w1", 100)
        everything = (1 << attempt.size) - 1
        settled = data.draw(st.just(everything) | st.integers(0, everything))
        outcomes: dict[str, list[int]] = {"crawled": [], "failed": [], "filtered": []}
        for position in bits(settled):
            outcomes[data.draw(st.sampled_from(["crawled", *outcomes]))].append(position)
        failed = sum(1 << position for position in outcomes["failed"])
        may, wanted = failed & data.draw(st.integers(0, everything)), data.draw(st.integers(0, everything))
        values = {
            "clean": clean, "stored": stored, "failed": {"dns": outcomes["failed"]}, "items": 2, "again": may,
            "filtered": {"offsite": outcomes["filtered"]},
        }  # fmt: skip
        worker = self.shared.worker(claimed.attempt.node)
        welcome = run(worker.stage_found(claimed, 0, entries_of(*found))) if found else True
        for _ in range(2):  # the answer may be lost
            ours = run(
                worker.settle(
                    claimed,
                    receipt(claimed.attempt, settled, **values),
                    found=int(bool(found)),
                    again=wanted,
                    counts=counted,
                )
            )
        if not welcome or (isinstance(ours, Objection) and " before" in ours.reason):
            # Here it is too late as soon as another attempt has begun; there it may still be the first to settle.
            assert isinstance(ours, Objection)
            assert ours.blame is Blame.NOBODY
            self.ledger.verdicts.reject(attempt, ours.reason, counts=False, max_attempts=MAX_ATTEMPTS)
            self.claimed.remove(pair)
        else:
            theirs = self.ledger.verdicts.settle(
                attempt, receipt(attempt, settled, **values), max_attempts=MAX_ATTEMPTS,
                found=found_of(found) if found else [], again=wanted, counts=counted,
            )  # fmt: skip
            while self.ledger.intake.divert_found():
                pass
            assert ours == theirs
            if not isinstance(ours, Objection):
                self.claimed.remove(pair)
        self._map_children()

    def go_on_in_another_process(self, data: st.DataObject) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "s.sqlite")
        assert self.ledger.begin(IDENTITY, resume=True)
        begun = run(self.shared.again())
        assert not begun.is_new
        assert not begun.walked

    @invariant()
    def is_the_same(self) -> None:
        run(self._is_the_same())

    async def _is_the_same(self) -> None:
        shared, account = self.shared, self.shared.account
        state = await account.state()
        assert state.balance == self.ledger.account.balance()
        assert state.balance.holds
        nothing_left = state.balance.queued == state.balance.in_flight == state.moving == 0
        assert self.ledger.account.settled() == nothing_left
        assert [f'"{body}"' for body in await waiting(shared)] == queued(self.ledger)
        theirs = {record.number: record for record in self.reader.batches(1)}
        async for record in account.batches():
            other = theirs.pop(self.batches[record.number])
            for name in BATCH:
                assert getattr(record, name) == getattr(other, name), (name, record, other)
        assert theirs == {}
        live = {self.batches[job.batch] for job in await account.jobs()}
        assert live == {
            batch for (batch,) in self.ledger.store.db.execute("SELECT number FROM batch WHERE state = 'in flight'")
        }

    async def _the_same_has_ended(self) -> None:
        ours = [record async for record in self.shared.account.outcomes()]
        told = {(self.batches[one.batch], one.position): (one.state, one.reason, one.url, one.again) for one in ours}
        theirs = list(self.reader.outcomes(1))
        assert told == {(one.batch, one.position): (one.state, one.reason, one.url, one.again) for one in theirs}


async def waiting(shared: SharedRun) -> list[str]:
    """The requests that are in no batch, in order."""
    return [body.strip('"') async for _, body in shared.account._waiting()]


def test_the_same_steps_lead_to_the_same_run_in_both_stores(
    server: Server, child: ValkeyChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portion, "SIZE", 3)
    machine = type("Machine", (BothStores,), {"server": server})
    examples = 150 if settings.default.max_examples >= 100 else 4
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=60))
