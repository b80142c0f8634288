"""``scrapy batches export``: what has come home, written once more. A Scrapy of its own does it, in a child process."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from ledgers import IDENTITY, a_batch, receipt
from scrapy import Spider
from scrapy_command import scrapy
from tiny_project import write_project

from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.reader import LedgerReader
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
        spool.begin(ledger.run, ())
        own = spool.begin_own("own-1.jl")
        own.add(OWN)
        file = own.sync()
        own.close()
        assert file is not None
        ledger.harvest.set_own_files({"own-1.jl": file})
        attempt = a_batch(ledger)
        writer = ItemWriter()
        data = b"".join(line for item in HOME for line in writer.lines(item, position=0))
        with spool.draft() as draft:
            draft.file.write(data)
            draft.keep(attempt.spool_name)
        haul = Haul(items=2, size=len(data), digest=sha256(data).hexdigest())
        ledger.verdicts.settle(attempt, receipt(attempt, items=2), max_attempts=1, haul=haul)
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
    file.write_bytes(content.replace(b"tea", b"pea"))
    done = export(project, "-O", "out.jl")
    assert done.returncode == 1
    assert [json.loads(line) for line in (project / "out.jl").read_text().splitlines()] == [OWN]
    assert "NOT COMPLETE" in done.stdout
    words = f"lost, those of batch 1: found other bytes than were written, expected 2 items in {len(content)} bytes."
    assert words in done.stdout
    assert "scrapy batches retry --lost-items --ledger " in done.stdout
    for path in file.parent.iterdir():
        path.unlink()
    done = export(project, "-O", "out.jl")
    assert (done.returncode, (project / "out.jl").exists()) == (2, True)
    assert "found nothing that can be exported, expected the items that came home" in done.stderr
    assert "(2 such files)" in done.stderr


def test_what_is_lost_is_crawled_again_by_the_next_crawl(project: Path) -> None:
    (file,) = (project / "l.sqlite.items").glob("*/000001*.jl")
    command = ("batches", "retry", "--lost-items", "--ledger", "l.sqlite")
    done = scrapy(project, *command)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("\n  0 lost files, 0 requests to be crawled again\n")
    file.write_bytes(file.read_bytes()[:-5])
    done = scrapy(project, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  {file.name} is lost: batch 1 is crawled again\n  1 lost file, 4 requests to be " in done.stdout
    assert "takes it up again: scrapy crawl quick" in done.stdout
    with closing(LedgerReader(project / "l.sqlite")) as reader:
        (run,) = reader.runs()
        assert (run.ended, reader.balance(1).queued, list(reader.spooled(1))) == (None, 4, ["own-1.jl"])
    assert scrapy(project, "batches", "check", "--ledger", "l.sqlite").returncode == 1
    assert scrapy(project, *command, "--state", "dead").returncode == 2


def test_what_the_project_can_not_read_any_more_is_lost(project: Path) -> None:
    (file,) = (project / "l.sqlite.items").glob("*/000001*.jl")
    data = b'["class",1,"tiny.items","Gone"]\n[0,1,{"a":1}]\n'
    file.write_bytes(data)
    with closing(sqlite3.connect(project / "l.sqlite")) as db:
        db.execute("UPDATE attempt SET home = 1, size = ?, digest = ?", (len(data), sha256(data).hexdigest()))
        db.commit()
    done = export(project, "-O", "out.jl")
    assert done.returncode == 1
    assert "those of batch 1: can't be read any more: " in done.stdout
    done = scrapy(project, "batches", "retry", "--lost-items", "--ledger", "l.sqlite", "--json")
    assert (json.loads(done.stdout)["lost"], json.loads(done.stdout)["again"]) == ([file.name], 4)


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
