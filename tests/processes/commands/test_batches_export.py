"""``scrapy batches export``: what has come home, written once more. A Scrapy of its own does it, in a child process."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from ledgers import IDENTITY, a_batch, receipt
from scrapy import Spider
from scrapy_command import scrapy
from tiny_project import write_project

from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger

OWN = {"name": "own", "price": 1}
HOME = [{"name": "tea", "price": 2}, {"name": "Käse", "price": 3}]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With a run that is over, whose items have come home."""
    folder = write_project(tmp_path / "project")
    with closing(Ledger(folder / "l.sqlite")) as ledger:
        ledger.begin({**IDENTITY, "spider": "quick", "items": "home"}, resume=True)
        spool = Spool(ledger.path, Spider)
        spool.begin(ledger.run, (), keep_own=True)
        own = spool.begin_own()
        own.add(OWN)
        assert own.sync()
        own.close()
        attempt = a_batch(ledger)
        writer = ItemWriter()
        with spool.draft() as draft:
            for item in HOME:
                draft.file.writelines(writer.lines(item, position=0))
            draft.keep(attempt.spool_name)
        ledger.verdicts.settle(attempt, receipt(attempt, items=2), max_attempts=1, haul=Haul(items=2))
        ledger.intake.walked()
        assert ledger.account.end()
    return folder


def export(project: Path, *words: str) -> CompletedProcess[str]:
    return scrapy(project, "batches", "export", "--ledger", "l.sqlite", *words)


def test_all_of_it_in_any_format(project: Path) -> None:
    done = export(project, "-O", "out.jl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n  3 items in out.jl\n")
    assert [json.loads(line) for line in (project / "out.jl").read_text().splitlines()] == [OWN, *HOME]
    (project / "out.txt").write_text("old")
    assert json.loads(export(project, "-O", "out.txt:csv", "--json").stdout)["items"] == 3
    rows = csv.DictReader(io.StringIO((project / "out.txt").read_text()))
    assert [row["name"] for row in rows] == ["own", "tea", "Käse"]


def test_the_settings_of_its_spider_are_those_of_the_crawl(project: Path) -> None:
    spiders = project / "tiny/spiders.py"
    settings = '{"TELNETCONSOLE_ENABLED": False, "FEED_EXPORT_FIELDS": ["price"], "ITEM_PIPELINES": {"no.such.One": 1}}'
    spiders.write_text(spiders.read_text().replace('{"TELNETCONSOLE_ENABLED": False}', settings))
    done = export(project, "-O", "out.jl")
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "out.jl").read_text() == '{"price": 1}\n{"price": 2}\n{"price": 3}\n'


def test_a_file_that_can_not_be_written_is_told_once(project: Path) -> None:
    (project / "file").write_text("")
    done = export(project, "-O", "file/out.jl")
    assert done.returncode == 1
    assert "NOT COMPLETE" in done.stdout
    assert done.stderr.count("Error caught on signal handler") == 1


def test_what_is_not_there_any_more_is_named(project: Path) -> None:
    (file,) = (project / "l.sqlite.items").glob("*/000001*.jl")
    content = file.read_bytes()
    file.write_bytes(content[:-5])
    done = export(project, "-O", "out.jl")
    assert done.returncode == 1
    assert f"{file.name}: found" in done.stderr
    file.unlink()
    done = export(project, "-O", "out.jl")
    assert done.returncode == 2
    assert f"1 files are missing, {file.name} first" in done.stderr


def test_of_a_spider_that_the_project_does_not_have_nothing_is_written(project: Path) -> None:
    spiders = project / "tiny/spiders.py"
    spiders.write_text(spiders.read_text().replace('"quick"', '"slow"'))
    done = export(project, "-O", "out.jl")
    assert done.returncode == 2
    assert "its spider 'quick' is none of the project in this folder" in done.stderr
    assert not (project / "out.jl").exists()


def test_an_unknown_format_is_refused(project: Path) -> None:
    done = export(project, "-O", "out.nope")
    assert done.returncode == 2
    assert "nope" in done.stderr + done.stdout
