"""``scrapy batches retry`` and ``merge``: what they change, what they write, and exit codes."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from batches_command import Answering, Said, change, off_by_one, show, some_failed
from ledgers import IDENTITY, a_batch, bind, halved, of_feeds, receipt, settled, unfinished

from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.board import board_path
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.wire.payload import decode_payload

# retry


def test_retry_makes_the_same_command_take_the_run_up_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "retry", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  1 request to be tried again, 1 left out",
        "    left out: their callback had begun, so items of them may be in a feed (--callback takes these as well)",
        "  the command that began the run takes it up again: scrapy crawl s, with its arguments",
    ]
    assert Said(capsys, "check", "--ledger", "s.sqlite").out.splitlines()[1:] == [
        "  4 diverted = 1 queued + 0 in flight + 1 crawled + 1 failed + 1 filtered + 0 dead",
        "  not finished",
    ]
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        assert not ledger.begin(IDENTITY, resume=True)
        assert ledger.run == run
        attempt = bind(ledger)
        assert (attempt.label, attempt.size) == ("2", 1)
        ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3)
        assert ledger.account.end()
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == 0
    assert Said(capsys, "show", "1", "--ledger", "s.sqlite").out.splitlines()[2].endswith("1 given to batch 2")


@pytest.mark.parametrize(
    ("options", "again", "left_out"),
    [([], 1, 1), (["--state", "dead"], 0, 0), (["--reason", "http *"], 0, 1), (["--reason", "d?s"], 1, 0)],
)
def test_retry_of_some(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], again: int, left_out: int
) -> None:
    run = some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "retry", "--json", "--ledger", "s.sqlite", *options)
    (line,) = said.lines
    assert line.pop("answer").startswith(f"{again} request{'s' * (not again)} to be tried again, {left_out} left out")
    assert line == {"run": run, "spider": "s", "again": again, "left_out": left_out, "begun": 0}
    assert said.code == (0 if again else 1)
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == (1 if again else 0)
    assert Said(capsys, "retry", "--ledger", "s.sqlite", *options).code == 1  # nothing is tried again twice


def test_retry_makes_few_batches(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for first in range(0, 12, 4):
            attempt = a_batch(ledger, *range(first, first + 4))
            report = receipt(attempt, 0b0111, failed={"dns": [0, 1]}, again=0b0011, finish_reason="shutdown")
            ledger.verdicts.settle(attempt, report, max_attempts=1)
            if ledger.bookings.ready():
                ledger.verdicts.reject(bind(ledger), "killed", counts=True, max_attempts=1)
        ledger.intake.walked()
        assert ledger.account.end()
    assert Said(capsys, "retry", "--json", "--ledger", "s.sqlite").lines[0]["again"] == 9
    (shown,) = Said(capsys, "list", "--json", "--ledger", "s.sqlite").lines[0]["runs"]
    assert [(batch["number"], batch["size"], batch["parent"]) for batch in shown["batches"][3:]] == [
        (4, 4, None),
        (5, 4, None),
        (6, 1, 3),
    ]
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        urls = [decode_payload(ledger.bookings.bind(number, "n")[1]) for number in (4, 5, 6)]
    paths = [[url.rpartition("/")[2] for url in batch] for batch in urls]
    assert paths == [["0", "1", "3", "4"], ["5", "7", "8", "9"], ["11"]]


def test_retry_of_what_had_begun_its_callback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "retry", "--callback", "--reason", "http *", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  1 request to be tried again, 0 left out",
        "    of 1 the callback had begun: items that it gave are in the result already, and come once more",
        "    where the parser was mended and Scrapyds crawl, deploy it before: scrapy fleet deploy",
        "  the command that began the run takes it up again: scrapy crawl s, with its arguments",
    ]
    said = Said(capsys, "retry", "--callback", "--json", "--ledger", "s.sqlite")
    words = "1 request to be tried again, 0 left out"
    assert said.lines == [{"run": run, "spider": "s", "again": 1, "left_out": 0, "begun": 0, "answer": words}]
    assert Said(capsys, "retry", "--callback", "--ledger", "s.sqlite").code == 1


@pytest.mark.parametrize(
    ("answer", "code", "shown", "numbers"),
    [
        (Answer(lines=("1 request", "so and so"), numbers={"again": 1, "left_out": 2, "begun": 0}), 0,
         "  1 request\n    so and so\n", {"again": 1, "left_out": 2, "begun": 0}),
        (Answer(lines=("0 requests",), done=False, numbers={"again": 0, "left_out": 2, "begun": 0}), 1,
         "  0 requests\n", {"again": 0, "left_out": 2, "begun": 0}),
        (Answer(lines=("it is closing",), done=False), 1, "  it is closing\n", {"again": 0, "left_out": 0, "begun": 0}),
    ],
    ids=["some", "none", "refused"],
)  # fmt: skip
def test_retry_while_a_crawl_runs_is_wished_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, answer: Answer, code: int, shown: str, numbers: dict[str, int]
) -> None:
    path = tmp_path / "s.sqlite"
    run = some_failed(path)
    for words in ([], ["--json"]):
        with Answering(path, answer.as_text()) as crawl:
            said = Said(capsys, "retry", "--state", "failed", "--callback", "--ledger", "s.sqlite", *words)
        assert said.code == code
        assert [(wish.what, Wanted.from_text(wish.about)) for wish in crawl.wishes] == [
            ("retry", Wanted(state="failed", begun=True, run=run))
        ]
        if words:
            assert said.lines == [{"run": run, "spider": "s", **numbers, "answer": answer.words}]
        else:
            assert said.out == f"run {run}, spider s of p (s.sqlite)\n{shown}"
    said = Said(capsys, "retry", "--json", "--ledger", "s.sqlite")
    assert (said.code, list(said.lines[0])) == (0, ["run", "spider", *numbers, "answer"])


def test_what_is_wished_of_a_crawl_is_of_the_run_that_it_is_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Which need not be the last one that has begun: the command of an older one may go on."""
    path = tmp_path / "s.sqlite"
    older, newer = unfinished(path), unfinished(path, IDENTITY | {"arguments": "other"})
    for shown, run in ((older, older), ("gone", newer), (None, newer)):
        if shown is not None:
            show(path, run=shown)
        for action in ("pause", "retry"):
            with Answering(path, "as you wish") as crawl:
                said = Said(capsys, action, "--ledger", "s.sqlite")
            assert said.out == f"run {run}, spider s of p (s.sqlite)\n  as you wish\n"
        assert [Wanted.from_text(wish.about) for wish in crawl.wishes] == [Wanted(run=run)]
        board_path(path).write_text("no board")


def test_retry_of_lost_items_needs_the_ledger_for_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    some_failed(tmp_path / "s.sqlite")
    with closing(Ledger(tmp_path / "s.sqlite")):
        said = Said(capsys, "retry", "--lost-items", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert "s.sqlite: another coordinator is using this ledger; wait for it" in said.error


# merge


def test_merge_writes_the_feeds_that_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    halved(tmp_path / "s.sqlite")
    (tmp_path / "items").mkdir()
    for name in ("1", "1.2", "2"):
        (tmp_path / "items" / f"{name}.jl").write_text(f'{{"url": "{name}"}}\n' * 2)
    said = Said(capsys, "merge", "items", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (said.code, said.error) == (0, "")
    assert said.out == "2 items of 1 feed in out.jl, each start URL in one feed only\n"
    assert (tmp_path / "out.jl").read_text() == '{"url": "2"}\n' * 2


def test_merge_of_what_is_not_complete_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", [("1.jl", 1)], [("2.jl", 1)], [("3.jl", 1)])
    (tmp_path / "2.jl").write_text('{"url": "2"}\n')
    words = ["merge", ".", "-O", "out.jl", "--ledger", "s.sqlite"]
    said = Said(capsys, *words)
    assert said.code == 1
    assert said.out == "nothing written: 2 faults; --partial writes what is there: 1 item of 1 feed\n"
    assert said.error.splitlines() == [
        "missing: feed 1.jl of batch 1: found no file 1.jl, expected 1 item",
        "missing: feed 3.jl of batch 3: found no file 3.jl, expected 1 item",
    ]
    assert not (tmp_path / "out.jl").exists()
    said = Said(capsys, *words, "--partial")
    assert (said.code, said.out) == (1, "1 item of 1 feed in out.jl, NOT COMPLETE: 2 faults\n")
    assert (tmp_path / "out.jl").read_text() == '{"url": "2"}\n'
    (found,) = Said(capsys, *words, "--json").lines
    assert (found["written"], found["items"], found["feeds"]) == (False, 1, 1)
    assert [fault["kind"] for fault in found["faults"]] == ["missing", "missing"]


def test_merge_of_items_that_are_larger_than_expected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", [("1.jl", 1)])
    (tmp_path / "1.jl").write_text(json.dumps({"text": "x" * 5_000_000}) + "\n")
    words = ["merge", ".", "-O", "out.jl", "--ledger", "s.sqlite"]
    said = Said(capsys, *words)
    assert said.code == 1
    assert said.error.startswith(
        "unreadable: 1.jl, feed 1.jl of batch 1: line 1 has more than 4,194,304 bytes; --max-item"
    )
    assert Said(capsys, *words, "--max-item", "5").code == 0
    assert (tmp_path / "out.jl").read_bytes() == (tmp_path / "1.jl").read_bytes()
    with pytest.raises(SystemExit):
        Said(capsys, *words, "--max-item", "0")


@pytest.mark.parametrize(("make", "verdict"), [(unfinished, "not finished"), (off_by_one, "OFF BY 1")])
def test_merge_of_a_run_that_is_not_settled_is_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Any, verdict: str
) -> None:
    make(tmp_path / "s.sqlite")
    said = Said(capsys, "merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert said.code == 1
    assert f"unsettled: the run is {verdict}: " in said.error
    assert not (tmp_path / "out.jl").exists()


def test_merge_does_not_flood_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", *([(f"{number}.jl", 1)] for number in range(13)))
    said = Said(capsys, "merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert len(said.error.splitlines()) == 11
    assert said.error.splitlines()[-1] == "missing: 3 more; --json names all"
    assert len(Said(capsys, "merge", ".", "-O", "o", "--json", "--ledger", "s.sqlite").lines[0]["faults"]) == 13


def test_merge_of_folders_that_are_not_there_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / "s.sqlite")
    said = Said(capsys, "merge", "gone", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert said.error == "gone: found no folder there, expected one with feeds in it\n"


def test_merge_finds_the_feeds_where_workers_were_told_to_write_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    of_feeds(path, [("file:///etc/1.jl", 1)])  # a worker's word leads nowhere
    words = ["merge", "-O", "out.jl", "--ledger", "s.sqlite"]
    said = Said(capsys, *words)
    missing = "missing: feed file:///etc/1.jl of batch 1: found no file 1.jl, expected 1 item"
    assert (said.code, said.error.splitlines()) == (1, ["looked for feeds in no folder", missing])
    change(path, "UPDATE run SET feeds = '[\"ftp://u@h/%(batch)s.jl\"]'")
    said = Said(capsys, *words)
    assert (said.code, said.out) == (2, "")
    assert "feeds that workers write to ftp://u@h/%(batch)s.jl: fetch them" in said.error
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "1.jl").write_text('{"url": "1"}\n')
    change(path, f'UPDATE run SET feeds = \'["file://{tmp_path}/items/%(batch)s.jl", "ftp://h/%(batch)s.csv"]\'')
    said = Said(capsys, *words)
    assert (said.code, said.out) == (0, "1 item of 1 feed in out.jl, each start URL in one feed only\n")
    assert said.error.splitlines() == [
        f"looked for feeds in {tmp_path / 'items'}",
        "not looked for, as they are not here: feeds in ftp://h/%(batch)s.csv",
    ]
