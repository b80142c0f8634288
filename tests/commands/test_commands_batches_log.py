"""``scrapy batches log``: the logs of jobs on this machine, and where those of the others are."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from batches_command import Said, change
from ledgers import IDENTITY, a_batch, receipt

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.commands import batch_log, job_log
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt

HERE = ("local", "local")


class Run:
    """A run in ``s.sqlite`` with one batch, and attempts at it on this machine."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.files = JobFiles.beside(folder / "s.sqlite")
        self.files.make()

    def bind(self, node: tuple[str, str] = HERE) -> Attempt:
        return self.ledger.bookings.bind(1, *node)[0]

    def rejected(self, node: tuple[str, str] = HERE) -> Attempt:
        attempt = self.bind(node)
        self.ledger.verdicts.reject(attempt, "no receipt: killed", counts=False, max_attempts=9)
        return attempt

    def log(self, attempt: Attempt, text: bytes) -> str:
        with self.files.open_log(attempt.job) as log:
            log.write(text)
        return str(self.files.log(attempt.job))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor is that of the tests, and nothing here waits for it."""

    def run(main: Callable[[], Coroutine[Any, Any, bool]]) -> Any:
        with pytest.raises(StopIteration) as ended:
            main().send(None)
        return ended.value.value

    monkeypatch.setattr(batch_log, "run_in_reactor", run)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    with closing(run.ledger):
        run.ledger.verdicts.unsent(a_batch(run.ledger), "refused")
        yield run


def test_attempt_by_attempt_where_it_ran(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    there = run.rejected(("n1", "http://n1:6800"))
    first = run.log(run.rejected(), b"one\ntwo")
    run.rejected()
    last = run.bind()
    run.ledger.bookings.sent(last)
    said = Said(capsys, "log", "1", "--ledger", "s.sqlite")
    assert said.out.splitlines() == [
        "==> attempt 1 (batch=1) on n1, unsent (refused), log: none, it never ran",
        f"==> attempt 2 (batch=1.2) on n1, rejected (no receipt: killed), log: http://n1:6800/logs/p/s/{there.job}.log"
        " (not read: its node is in neither scrapy.cfg nor DISTRIBUTED_TARGET_HOSTS)",
        f"==> attempt 3 (batch=1.3) on local, rejected (no receipt: killed), log: {first}",
        "one",
        "two",
        "==> attempt 4 (batch=1.4) on local, rejected (no receipt: killed), log: none any more, those of the last 100"
        " jobs are kept",
        "==> attempt 5 (batch=1.5) on local, sent, log: none yet, it has not begun",
    ]
    assert said.code == 0
    (shown,) = Said(capsys, "log", "1", "--json", "--ledger", "s.sqlite").lines
    assert (shown["batch"], [one["log"] and one["log"][:4] for one in shown["attempts"]]) == (
        1, [None, "http", first[:4], None, None],
    )  # fmt: skip
    assert "two" not in str(shown)


def test_one_attempt_by_its_label(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.log(run.rejected(), b"second\n")
    run.log(run.rejected(), b"third\n")
    said = Said(capsys, "log", "1.2", "--ledger", "s.sqlite")
    assert said.out == (f"==> attempt 2 (batch=1.2) on local, rejected (no receipt: killed), log: {path}\nsecond\n")
    for label in ("2", "1.4"):
        said = Said(capsys, "log", label, "--ledger", "s.sqlite")
        assert (said.code, said.out) == (2, "")
        assert f"s.sqlite: found no attempt {label} in run {run.ledger.run}; list and show" in said.error


def test_none_is_here(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.rejected(("n1", "http://n1:6800"))
    assert Said(capsys, "log", "1", "--ledger", "s.sqlite").code == 1
    assert Said(capsys, "log", "1", "--json", "--ledger", "s.sqlite").code == 1


def test_what_a_page_says_is_no_command_to_the_terminal(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "PIECE", 5)  # a line is read in several pieces, cut in the middle of what is escaped
    run.log(run.rejected(), "a ü \x1b]0;title\x07 \u202e\r\n\n".encode() + b"\xff end")
    said = Said(capsys, "log", "1.2", "--ledger", "s.sqlite")
    assert said.out.splitlines()[1:] == ["a ü \\x1b]0;title\\x07 \\u202e\\r", "", "\ufffd end"]
    assert said.out.endswith("\n")


def test_a_log_that_can_not_be_read(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(run.log(run.rejected(), b"text\n"))

    async def refused(*args: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(job_log.LocalLog, "part", refused)
    said = Said(capsys, "log", "1.2", "--ledger", "s.sqlite")
    assert (said.code, said.error) == (1, f"==> attempt 2: can't be read: [Errno 13] Permission denied: '{path}'\n")


def test_no_password_of_a_url_is_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.log(run.rejected(), b"Stored jl feed in: ftp://u:s3cret@h/x\n")
    said = Said(capsys, "log", "1.2", "--ledger", "s.sqlite")
    assert said.out.splitlines()[1:] == ["Stored jl feed in: ftp://u@h/x"]


# It is followed


class Passing:
    """What happens while it is followed, a step a look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.runs = True
        monkeypatch.setattr(batch_log, "_pause", self._pause)
        monkeypatch.setattr(job_log.LocalLog, "runs", self._runs)

    async def _pause(self, seconds: float) -> None:
        self.steps.pop(0)()

    async def _runs(self) -> bool:
        return self.runs

    def end(self) -> None:
        self.runs = False


def test_that_of_the_last_attempt_is_followed_until_its_job_is_over(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.log(run.rejected(), b"of an earlier attempt\n")
    attempt = run.bind()
    run.ledger.bookings.sent(attempt)
    passing = Passing(
        monkeypatch,
        lambda: run.log(attempt, b"one\ntw"),  # until now it has not begun
        lambda: run.log(attempt, b"o\n"),
        lambda: (run.log(attempt, b"the end"), passing.end(), run.ledger.verdicts.unsent(attempt, "")),
    )
    said = Said(capsys, "log", "1", "-f", "--ledger", "s.sqlite")
    assert (said.code, said.error, passing.steps) == (0, "", [])
    title, *lines = said.out.splitlines()
    assert title == "==> attempt 3 (batch=1.3) on local, sent, log: none yet, it has not begun"
    assert lines == ["one", "two", "the end"]


def test_what_is_over_is_not_waited_for(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.log(run.rejected(), b"text\n")
    Passing(monkeypatch)
    said = Said(capsys, "log", "1", "-f", "--ledger", "s.sqlite")
    assert (said.code, said.out.splitlines()[1:]) == (0, ["text"])
    run.rejected(("n1", "http://n1:6800"))
    assert Said(capsys, "log", "1", "-f", "--ledger", "s.sqlite").code == 1


def test_a_node_of_somebody_else_is_not_asked(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.ledger.bookings.sent(run.bind(("n1", "http://n1:6800")))
    for words in (["-f"], []):
        said = Said(capsys, "log", "1.2", *words, "--ledger", "s.sqlite")
        assert (said.code, said.error) == (1, "")
        assert "not read: its node is in neither scrapy.cfg nor DISTRIBUTED_TARGET_HOSTS" in said.out


def test_nobody_waits_for_a_job_that_no_crawl_looks_after(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.ledger.bookings.sent(run.bind())
    passing = Passing(monkeypatch, run.ledger.close)
    passing.end()
    said = Said(capsys, "log", "1", "-f", "--ledger", "s.sqlite")
    assert (said.code, said.error) == (1, "==> attempt 2: none there\n")


def test_a_ledger_can_not_name_a_file_elsewhere(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = run.bind()
    change(tmp_path / "s.sqlite", "UPDATE run SET name = '../../secret'")
    (tmp_path / f"secret-000001-2-{attempt.token}.log").write_text("s3cret")
    for words in (["log", "1"], ["show", "1"]):
        said = Said(capsys, *words, "--ledger", "s.sqlite")
        assert (said.code, said.out) == (2, "")
        assert said.error.startswith("s.sqlite: job id '../../secret-000001-2-")


def test_show_tells_the_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = run.bind()
    path = run.log(attempt, b"")
    run.ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=1)
    lines = Said(capsys, "show", "1", "--ledger", "s.sqlite").out.splitlines()
    assert "  attempt 2 (batch=1.2): 4 requests on local, accepted (finished)" in lines
    assert f"    log {path}" in lines
    with closing(LedgerReader(run.ledger.path)) as reader:
        assert [one.log for one in reader.attempts(reader.runs()[0], 1)] == [None, None]  # no Scrapyd serves one
    Path(path).unlink()
    assert "    log" not in Said(capsys, "show", "1", "--ledger", "s.sqlite").out
