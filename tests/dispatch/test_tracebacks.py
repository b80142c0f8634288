"""The first traceback of each kind in the logs of workers on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapy_distributed.dispatch.tracebacks import Tracebacks

LOG = """\
2026-11-28 10:00:00 [scrapy.core.scraper] ERROR: Spider error processing <GET http://a/1> (referer: None)
Traceback (most recent call last):
  File "/srv/project/spiders/a.py", line {line}, in parse
    price = int(text)
            ^^^^^^^^^
{error}
2026-11-28 10:00:01 [scrapy.core.engine] INFO: Closing spider (finished)
"""


def log(folder: Path, name: str, *, line: int = 7, error: str = "ValueError: invalid literal: 'x'") -> Path:
    path = folder / name
    path.write_text(LOG.format(line=line, error=error))
    return path


def test_one_of_a_kind_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracebacks = Tracebacks(Path("q.sqlite"))
    tracebacks.tell(log(tmp_path, "1.log"), "1")
    tracebacks.tell(log(tmp_path, "2.log", error="ValueError: invalid literal: 'y'"), "2")
    assert len(caplog.messages) == 1
    first, *lines = caplog.messages[0].splitlines()
    assert first.startswith("Batch 1: the first of its kind")
    assert "scrapy batches log 1 --ledger q.sqlite" in first
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: invalid literal: 'x'"


def test_another_line_or_another_type_is_another_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracebacks = Tracebacks(Path("q.sqlite"))
    tracebacks.tell(log(tmp_path, "1.log"), "1")
    tracebacks.tell(log(tmp_path, "2.log", line=8), "2")
    tracebacks.tell(log(tmp_path, "3.log", error="KeyError: 'price'"), "3")
    assert len(caplog.messages) == 3


def test_what_it_shows_is_fit_for_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    error = "ValueError: \x1b[2Jftp://me:s3cr3t@host/x " + "long " * 1000
    Tracebacks(Path("q.sqlite")).tell(log(tmp_path, "1.log", error=error), "1")
    assert "\x1b" not in caplog.text
    assert "s3cr3t" not in caplog.text
    assert len(caplog.messages[0]) < 2_000


def test_a_long_one_is_cut_in_its_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = "".join(f'  File "/srv/a.py", line {n}, in f\n    f({n})\n' for n in range(500))
    (tmp_path / "1.log").write_text(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n")
    Tracebacks(Path("q.sqlite")).tell(tmp_path / "1.log", "1")
    lines = caplog.messages[0].splitlines()
    assert len(lines) < 40
    assert lines[-1] == "RecursionError: too deep"
    assert "  ..." in lines


def test_no_log_and_no_traceback_say_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.log").write_text("2026-11-28 10:00:00 [scrapy] INFO: all is well\n")
    Tracebacks(Path("q.sqlite")).tell(tmp_path / "1.log", "1")
    Tracebacks(Path("q.sqlite")).tell(tmp_path / "2.log", "2")
    assert not caplog.messages


def test_frames_of_packages_are_left_out_but_for_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [
        ("/venv/site-packages/scrapy/a.py", "run()"), ("/srv/spider.py", "parse()"),
        ("/venv/site-packages/parsel/b.py", "select()"), ("/venv/site-packages/parsel/c.py", "fail()"),
    ]  # fmt: skip
    text = "".join(f'  File "{file}", line 1, in f\n    {code}\n' for file, code in frames)
    (tmp_path / "1.log").write_text(f"Traceback (most recent call last):\n{text}ValueError: bad\n")
    Tracebacks(Path("q.sqlite")).tell(tmp_path / "1.log", "1")
    shown = [line.strip() for line in caplog.messages[0].splitlines() if line.startswith("    ")]
    assert shown == ["parse()", "fail()"]
