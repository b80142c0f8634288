"""``scrapy fleet doctor`` for workers on this machine: a real job of a real agent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from crawling import wait_for
from scrapy_command import environment, scrapy
from tiny_project import write_project

BROKEN = """\
import scrapy


class Broken(scrapy.Spider):
    name = "broken"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        raise LookupError("no such catalogue")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = write_project(tmp_path / "project")
    (folder / "tiny" / "settings.py").write_text(
        'BOT_NAME = "tiny"\nSPIDER_MODULES = ["tiny.spiders"]\nADDONS = {"scrapy_distributed.Addon": 500}\n'
        'DISTRIBUTED_TARGET_HOSTS = ["local:2"]\n'
        f'DISTRIBUTED_TARGET_FEED_URL = "file://{folder}/items/%(batch)s.jl"\n'
    )
    return folder


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the command has its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def strange_scrapyd() -> Iterator[str]:
    """The port of one that asks nobody for a password, and has nothing to do with the crawl."""

    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Open) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


def test_all_is_well(project: Path, temporary: Path, strange_scrapyd: str) -> None:
    """No Scrapyd is needed, and nothing is left behind."""
    result = scrapy(project, "fleet", "doctor", "--json", TMPDIR=str(temporary), SCRAPYD_HTTP_PORT=strange_scrapyd)
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    assert (answer["well"], answer["version"], {one["node"] for one in answer["checks"]}) == (
        True, "", {"here", "local"},
    )  # fmt: skip
    command, probe = answer["checks"][-2:]
    assert (command["check"], command["words"]) == ("command", "scrapy crawl quick")
    assert probe["words"].startswith("its receipt came home after ")
    assert probe["words"].endswith("; a file was written where its feed goes, and removed (file)")
    (rate,) = [one["words"] for one in answer["checks"] if one["check"] == "requests to a site"]
    assert "With 2 workers on this machine" in rate
    assert list(temporary.iterdir()) == []
    assert not (project / "items").exists()


def test_what_is_wrong_with_a_job_and_where_its_log_is(project: Path, temporary: Path) -> None:
    (project / "tiny" / "spiders.py").write_text(BROKEN)
    result = scrapy(project, "fleet", "doctor", TMPDIR=str(temporary))
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if " FAIL " in line]
    assert line.startswith("local  FAIL  probe: the job ended without a receipt. Its log says: LookupError: no such")
    log = Path(line.partition("; its log: ")[2])
    assert log.is_relative_to(temporary)
    assert "LookupError: no such catalogue" in log.read_text()


def test_ctrl_c_ends_the_job(project: Path, temporary: Path) -> None:
    doctor = subprocess.Popen(
        [sys.executable, "-m", "scrapy", "fleet", "doctor", "--spider", "waiting", "-s", "DISTRIBUTED_ENABLED=True"],
        cwd=project,
        env=environment(project, TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(temporary.glob("*/logs.receipts/*.lock")))
    doctor.send_signal(signal.SIGINT)
    output, errors = doctor.communicate(timeout=60)
    assert (doctor.returncode, errors) == (1, "")
    (line,) = [line for line in output.splitlines() if " FAIL " in line]
    assert "probe: interrupted, the job was taken back" in line
    assert "Spider closed (shutdown)" in Path(line.partition("; its log: ")[2]).read_text()


def test_what_a_crawl_refuses(project: Path) -> None:
    result = scrapy(project, "fleet", "doctor", "-s", "DISTRIBUTED_WAIT=False")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[-2].startswith("local  FAIL  command: DISTRIBUTED_WAIT: found False, and workers on this machine end")
    assert lines[-1] == "local  -     probe: not checked (no such command)"
