"""The cookies that go with requests are in the ledger with them: whatever becomes of a batch, the same are sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY, body, key, queued, receipt

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Fate
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.wire.payload import decode_batch
from scrapy_distributed.wire.session import Session, with_session

TEXTS = [json.dumps([None, [{"name": "sid", "value": f"{letter}"}]], separators=(",", ":")) for letter in "abcd"]
A, B, C, D = (Session(f"{number:016x}", text) for number, text in enumerate(TEXTS))
SESSIONS = {session.id: session for session in (A, B, C, D)}


def divert(ledger: Ledger, *sessions: Session | None, first: int = 0) -> list[str]:
    """Requests, numbered from *first*, with *sessions*."""
    bodies = [
        body(number) if session is None else with_session(body(number), session.id)
        for number, session in enumerate(sessions, first)
    ]
    return ledger.intake.divert([(key(first + number), one) for number, one in enumerate(bodies)], SESSIONS)


def sent(payload: str) -> list[str | None]:
    """The cookie that goes with each request; every session is used."""
    elements, sessions = decode_batch(payload)
    named = [element["_session"] if isinstance(element, dict) else None for element in elements]
    assert list(sessions) == list(dict.fromkeys(one for one in named if one is not None))
    return [None if one is None else sessions[one][1][0]["value"] for one in named]


def kept(ledger: Ledger) -> list[Any]:
    return [text for (text,) in ledger.store.db.execute("SELECT text FROM session ORDER BY id")]


def test_each_goes_once_with_the_requests_that_name_it(ledger: Ledger) -> None:
    divert(ledger, A, None, B, A)
    divert(ledger, None, None, first=9)
    assert kept(ledger) == [A.text, B.text]
    ledger.intake.cut([4, 2])
    payload = ledger.bookings.bind(1, "n1")[1]
    assert sent(payload) == ["a", None, "b", "a"]
    assert payload.count('"value":"a"') == 1
    assert ledger.bookings.bind(2, "n1")[1] == f"[{body(9)},{body(10)}]"


def test_what_is_no_new_request_leaves_none(ledger: Ledger) -> None:
    divert(ledger, A)
    divert(ledger, C)
    assert kept(ledger) == [A.text]


def test_a_run_that_is_taken_up_again_sends_the_same(path: Path) -> None:
    """Queued, ready, or with an attempt that is lost, when the coordinator was killed."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        divert(ledger, A, B, C, None)
        ledger.intake.cut([1, 1])
        first, payload = ledger.bookings.bind(1, "n1")
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.verdicts.lose(first, "silent", counts=True, max_attempts=3)
        assert ledger.bookings.bind(1, "n2")[1] == payload
        assert sent(ledger.bookings.bind(2, "n1")[1]) == ["b"]
        ledger.intake.cut([2])
        assert sent(ledger.bookings.bind(3, "n1")[1]) == ["c", None]


def test_later_attempts_and_halves_send_the_same(ledger: Ledger) -> None:
    divert(ledger, A, B, None, C, B)
    ledger.intake.cut([5])
    attempt, _ = ledger.bookings.bind(1, "n1")
    ledger.verdicts.settle(attempt, receipt(attempt, 0b00010, finish_reason="shutdown"), max_attempts=3)
    attempt, payload = ledger.bookings.bind(1, "n1")
    assert sent(payload) == sent(ledger.harvest.payload(attempt)) == ["a", None, "c", "b"]
    assert ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3) is Fate.AGAIN
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3) is Fate.HALVED
    assert [sent(ledger.bookings.bind(number, "n1")[1]) for number in (2, 3)] == [["a", None], ["c", "b"]]


def test_what_is_tried_on_another_node_or_once_more_sends_the_same(ledger: Ledger) -> None:
    divert(ledger, A, B, C)
    ledger.intake.cut([3])
    attempt, _ = ledger.bookings.bind(1, "n1")
    report = receipt(attempt, failed={"timeout": [0, 2]}, again=0b101)
    ledger.verdicts.settle(attempt, report, max_attempts=3, again=0b101)
    ledger.intake.cut_again(9, all_of_it=True)
    attempt, payload = ledger.bookings.bind(2, "n2")
    assert sent(payload) == ["a", "c"]
    ledger.verdicts.settle(attempt, receipt(attempt, failed={"timeout": [1]}, again=0b10), max_attempts=3)
    assert ledger.control.retry(Wanted())[:2] == (1, 0)
    assert sent(ledger.bookings.bind(3, "n2")[1]) == ["c"]


def test_what_a_worker_has_found_is_sent_with_what_the_run_has(ledger: Ledger) -> None:
    divert(ledger, A, B)
    ledger.intake.cut([2])
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.intake.jars_of(attempt) == {A.id: None, B.id: None}
    finds = [Finds.of([(key(7), with_session(body(7), B.id)), (key(8), body(8))])]
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=1, found=finds)
    ledger.intake.divert_found()
    ledger.intake.cut([2])
    assert sent(ledger.bookings.bind(2, "n1")[1]) == ["b", None]


# When a batch is cut


def renewing(**became: Session) -> Any:
    return {SESSIONS[f"{'abcd'.index(name):016x}"].id: session for name, session in became.items()}.get


def test_what_has_become_of_a_session_is_sent_from_then_on(ledger: Ledger) -> None:
    divert(ledger, A, None, B, A, A)
    made, length = ledger.intake.cut([4], renewing(a=C, d=A))
    assert (made, length) == (1, sum(map(len, divert_texts(C, None, B, C))))
    attempt, payload = ledger.bookings.bind(1, "n1")
    assert sent(payload) == ["c", None, "b", "c"]
    ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3)
    assert ledger.bookings.bind(1, "n1")[1] == payload
    assert [json.loads(one)["_session"] for one in queued(ledger)] == [A.id]


def test_two_that_have_become_the_same_go_once(ledger: Ledger) -> None:
    divert(ledger, A, B)
    ledger.intake.cut([2], renewing(a=C, b=C))
    assert sent(ledger.bookings.bind(1, "n1")[1]) == ["c", "c"]


def divert_texts(*sessions: Session | None) -> Sequence[str]:
    return [body(number) if one is None else with_session(body(number), one.id) for number, one in enumerate(sessions)]


# Damage


@pytest.mark.parametrize("sql", ["DELETE FROM session", "UPDATE session SET text = 'secret'"])
def test_what_is_damaged_is_not_sent_nor_shown(ledger: Ledger, sql: str) -> None:
    divert(ledger, A)
    ledger.store.db.execute(sql)
    with pytest.raises(LedgerUnavailableError, match="damaged") as caught:
        ledger.intake.cut([1])
    assert "secret" not in str(caught.value)
    assert queued(ledger)
