"""What comes home: which files, which pages, and what feeds have appended to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, body, divert, dump, key, receipt

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.rules import Haul, Objection
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.payload import decode_payload
from scrapy_distributed.wire.receipt import ItemsFile


def bring(ledger: Ledger, attempt: Attempt, *pages: int, items: int = 1, twice: int = 0, settled: int = -1) -> None:
    settled = (1 << attempt.size) - 1 if settled < 0 else settled
    assert ledger.harvest.enter_pages([key(page) for page in pages])
    haul = Haul(items=items, size=7 * items, digest="ab", twice=twice, pages=[key(page) for page in pages])
    ledger.verdicts.settle(attempt, receipt(attempt, settled), max_attempts=3, haul=haul)


def new(ledger: Ledger, *numbers: int) -> list[bool]:
    return [ledger.harvest.is_new_page(key(number)) for number in numbers]


def test_pages_and_requests_are_known_to_one_another(ledger: Ledger) -> None:
    divert(ledger, 1)
    assert new(ledger, 1, 2, 3) == [False, True, True]
    assert ledger.harvest.enter_pages([key(2)])
    assert new(ledger, 1, 2, 3) == [False, False, True]
    assert divert(ledger, 2, 3) == [body(3)]
    ledger.harvest.leave_pages([key(2)])
    assert new(ledger, 2) == [True]
    assert divert(ledger, 2) == [body(2)]


def test_pages_are_entered_all_or_none(ledger: Ledger) -> None:
    divert(ledger, 1)
    assert not ledger.harvest.enter_pages([key(2), key(1), key(3)])
    assert new(ledger, 1, 2, 3) == [False, True, True]
    assert ledger.harvest.enter_pages([])


def test_pages_are_known_to_a_later_command_if_their_attempt_counts(ledger: Ledger, path: Path) -> None:
    bring(ledger, a_batch(ledger, 0, 1), 40, 41)
    a_batch(ledger, 2, 3)
    assert ledger.harvest.enter_pages([key(50)])  # and the command is killed before the second one counts
    ledger.close()
    with closing(Ledger(path)) as again:
        again.begin(IDENTITY, resume=True)
        assert new(again, 0, 40, 41, 50) == [False, False, False, True]
        assert divert(again, 40, 50) == [body(50)]
    with closing(Ledger(path)) as other:
        other.begin(IDENTITY | {"arguments": "x"}, resume=True)
        assert new(other, 0, 40) == [True, True]


def test_what_is_not_accepted_brings_nothing(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    before = dump(ledger)
    haul = Haul(items=1, pages=[key(40)])
    report = receipt(attempt, stored=False)
    assert isinstance(ledger.verdicts.settle(attempt, report, max_attempts=3, haul=haul), Objection)
    assert dump(ledger) == before
    assert ledger.harvest.files() == {}


def test_the_files_are_those_of_accepted_attempts_that_brought_something_home(ledger: Ledger) -> None:
    one, two, three = a_batch(ledger, 0, 1), a_batch(ledger, 2), a_batch(ledger, 3)
    bring(ledger, three, items=0)
    bring(ledger, one, settled=0b01)
    ledger.verdicts.settle(two, receipt(two), max_attempts=3)  # whose items go elsewhere
    (number, *_), *_ = ledger.bookings.ready()
    again = ledger.bookings.bind(number, "n2")[0]
    rejected = a_batch(ledger, 4)
    ledger.verdicts.reject(rejected, "killed", counts=True, max_attempts=3)
    bring(ledger, again)
    names = [one.spool_name, again.spool_name, three.spool_name]
    expected = list(zip(names, [ItemsFile(1, 7, "ab"), ItemsFile(1, 7, "ab"), ItemsFile(0, 0, "ab")], strict=True))
    assert list(ledger.harvest.files().items()) == expected == sorted(expected)
    assert [ledger.harvest.file(attempt) for attempt in (one, again, three)] == [file for _, file in expected]
    own = {"own-1.jl": ItemsFile(3, 30, "cd"), "own-3.jl": ItemsFile(1, 10, "ef")}
    ledger.harvest.set_own_files(own)
    assert ledger.harvest.own_files() == own
    with closing(LedgerReader(ledger.path)) as reader:
        assert list(reader.spooled(1).items()) == [*own.items(), *expected]


def test_a_name_of_own_items_that_is_a_path_is_none(ledger: Ledger) -> None:
    ledger.harvest.set_own_files({"../own-1.jl": ItemsFile(1, 10, "ef")})
    with pytest.raises(LedgerUnavailableError, match="and the like"):
        ledger.harvest.own_files()
    with closing(LedgerReader(ledger.path)) as reader, pytest.raises(LedgerError, match="and the like"):
        reader.spooled(1)


def test_a_token_that_is_a_path_is_no_name_of_a_file(ledger: Ledger) -> None:
    bring(ledger, a_batch(ledger))
    ledger.store.db.execute("UPDATE attempt SET token = '../../x'")
    with closing(LedgerReader(ledger.path)) as reader, pytest.raises(LedgerError, match="letters and digits"):
        reader.spooled(1)


def test_how_many_came_home_is_shown(ledger: Ledger) -> None:
    bring(ledger, a_batch(ledger, 0), 40, items=5, twice=2)
    two = a_batch(ledger, 1)
    ledger.verdicts.settle(two, receipt(two), max_attempts=3)
    with closing(LedgerReader(ledger.path)) as reader:
        (run,) = reader.runs()
        assert [(found.home, found.twice) for found in reader.attempts(run, 1)] == [(5, 2)]
        assert [(found.home, found.twice) for found in reader.attempts(run, 2)] == [(None, 0)]
        assert [found.home for found in reader.accepted(1)] == [5, None]


def test_the_payload_is_what_the_attempt_was_sent(ledger: Ledger) -> None:
    attempt = a_batch(ledger, 0, 1, 2)
    bring(ledger, attempt, settled=0b010)
    again, payload = ledger.bookings.bind(attempt.batch, "n2")
    assert decode_payload(ledger.harvest.payload(attempt)) == ["http://a/0", "http://a/1", "http://a/2"]
    assert decode_payload(ledger.harvest.payload(again)) == decode_payload(payload) == ["http://a/0", "http://a/2"]


def test_of_a_file_that_is_appended_to_the_first_length_counts(ledger: Ledger, path: Path) -> None:
    assert ledger.harvest.appended() == {}
    ledger.harvest.appends_to("/a.jl", 7)
    ledger.harvest.appends_to("/b.jl", 0)
    ledger.close()
    with closing(Ledger(path)) as again:
        again.begin(IDENTITY, resume=True)
        again.harvest.appends_to("/a.jl", 900)
        assert again.harvest.appended() == {"/a.jl": (7, 0, ""), "/b.jl": (0, 0, "")}
        again.harvest.has_appended({"/a.jl": (30, "ab"), "/unknown.jl": (1, "ef")})
        again.harvest.appends_to("/a.jl", 900)
        assert again.harvest.appended() == {"/a.jl": (7, 30, "ab"), "/b.jl": (0, 0, "")}
    with closing(Ledger(path)) as other:
        other.begin(IDENTITY, resume=False)
        assert other.harvest.appended() == {}


def test_earlier_runs_are_those_of_this_identity_that_have_ended(path: Path) -> None:
    names = []
    other = IDENTITY | {"arguments": "x"}
    for identity in (IDENTITY, IDENTITY, other, other, IDENTITY):
        with closing(Ledger(path)) as ledger:
            ledger.begin(identity, resume=False)
            names.append(ledger.run)
            if len(names) == 2:
                assert ledger.harvest.earlier_runs() == names[:1]
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        assert ledger.run == names[4]
        assert ledger.harvest.earlier_runs() == [names[0], names[1]]


def test_where_workers_write_is_known_of_all_commands_of_a_run(ledger: Ledger, path: Path) -> None:
    ledger.harvest.workers_write(["file:///a/%(batch)s.jl"])
    ledger.harvest.workers_write(["file:///b/%(batch)s.jl", "file:///a/%(batch)s.jl"])
    with closing(LedgerReader(path)) as reader:
        assert reader.feed_urls(1) == ["file:///a/%(batch)s.jl", "file:///b/%(batch)s.jl"]
