"""``scrapy fleet doctor``: its probe against a fake that can do everything wrong, and the whole against real nodes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from crawling import call, wait_for
from fake_scrapyd import FakeJob, FakeScrapyd, Fault
from ftp_child import ftp_server
from scrapy.settings import Settings
from scrapy_command import environment, scrapy
from scrapyd_child import ScrapydChild, start
from tiny_project import write_project
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from until import until

from scrapy_distributed.commands.doctor import all_well
from scrapy_distributed.commands.probe import Probe, examine, probe_of
from scrapy_distributed.config.config import Config
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.preflight import Finding, Survey, Verdict
from scrapy_distributed.wire.code import Egg
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import Receipt

SECRET = "s3cr3t-Pa55"


# The probe


@pytest.fixture
def fake() -> Iterator[FakeScrapyd]:
    fake = FakeScrapyd(projects={"p": {"r1": ["s"]}}).listen()
    yield fake
    pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


def a_probe(timeout: float = 10.0, code: str = "") -> Probe:
    settings = {"FEED_URI": "file:///items/%(batch)s.jl", "FEEDS": "{}", "A": "1"}
    job = JobTemplate(project="p", spider="s", version="", settings=settings, args={"site": "x"})
    return Probe(job=probe_of(job, Config.from_settings(Settings())), timeout=timeout, clock=reactor, code=code)


async def probed(
    fake: FakeScrapyd, act: Callable[[FakeJob], None] | None = None, probe: Probe | None = None
) -> Finding:
    """What the probe finds, if *act* is done with its job as soon as the node has it."""
    node = Node(address=fake.address, deadline_seconds=5)
    survey = Survey(project="p", spider="s")
    examined = Deferred.fromCoroutine(examine([node], survey, probe or a_probe()))
    if act is not None:

        async def sent() -> bool:
            return bool(fake.jobs)

        await until(sent)
        act(fake.jobs[0])
    findings = await examined
    await node.close()
    assert [finding.check for finding in findings][-1] == "probe"
    assert not [job for job in fake.jobs if job.state != "finished"], "a job was left behind"
    return findings[-1]


def receipt_of(job: FakeJob, **more: Any) -> str:
    values = {"final": True, "stored": True, "finish_reason": "finished", **more}
    return Receipt(job=job.id, sequence=1, size=0, settled=0, **values).to_json()


def ends(fake: FakeScrapyd, text: Callable[[FakeJob], str] | None = None, log: str = "") -> Callable[[FakeJob], None]:
    """The job runs and ends, with the receipt *text* and the log *log*."""

    def act(job: FakeJob) -> None:
        if text is not None:
            fake.files[f"p/s.receipts/{job.id}.json"] = text(job).encode()
        if log:
            fake.files[f"p/s/{job.id}.log"] = log.encode()
        job.state = "finished"

    return act


@pytest_twisted.ensureDeferred
async def test_a_receipt_comes_home(fake: FakeScrapyd) -> None:
    finding = await probed(fake, ends(fake, receipt_of))
    assert (finding.verdict, finding.words[:27]) == (Verdict.OK, "its receipt came home after")
    assert all_well([finding])
    (job,) = fake.jobs
    assert job.id.startswith("doctor-")
    assert (job.version, job.args) == ("r1", {"site": "x", "batch": "doctor"})
    feed = job.settings.pop("FEED_URI")
    assert re.fullmatch(r"file:///items/%\(batch\)s-[0-9a-f]{8}\.jl", feed)
    assert job.settings == {
        "A": "1",
        "DISTRIBUTED_START_URL": "[]",
        "FEEDS": "{}",
        "FEED_STORE_EMPTY": "False",
        "URLLENGTH_LIMIT": "1",
    }


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("code", ["0" * 16, "1" * 16, ""])
async def test_a_node_that_runs_other_code(fake: FakeScrapyd, code: str) -> None:
    finding = await probed(fake, ends(fake, lambda job: receipt_of(job, egg=Egg("r1", "0" * 16))), a_probe(code=code))
    differs = code.startswith("1")
    assert finding.verdict is (Verdict.WARN if differs else Verdict.OK)
    words = ". But the code here is not that of version r1, which runs there: scrapy fleet deploy"
    assert finding.words.endswith(words) is differs
    assert all_well([finding]) is not differs


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("told", [True, False])
async def test_a_node_whose_own_machine_gets_in_without_a_password(fake: FakeScrapyd, told: bool) -> None:
    """As where a proxy asks for it. It is said once where anybody gets in from here, too."""
    fake.username, fake.password = ("user-x", SECRET) if told else ("", "")
    finding = await probed(fake, ends(fake, lambda job: receipt_of(job, stats={"distributed/open_scrapyd": 1})))
    assert finding.verdict is (Verdict.RISK if told else Verdict.OK)
    assert (". But on its own machine, past a proxy, no password is needed: anybody gets in" in finding.words) is told
    assert all_well([finding])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("text", "log", "words"),
    [
        (None, "", "It has no log either, so it died at its start: most often scrapy_distributed"),
        (
            None,
            "ModuleNotFoundError: No module named 'scrapy_distributed'",
            "ended without a receipt. Its log says: ModuleNotFoundError: No module named 'scrapy_distributed': install"
            " scrapy-distributed-batches on this node",
        ),
        (None, "ModuleNotFoundError: No module named 'boto3'", "'boto3': install on this node what the project"),
        (None, "TypeError: __init__() missing 1 required argument: 'x'", "give the argument with -a NAME=VALUE"),
        (None, "INFO: Spider closed (finished)", "(ADDONS): then deploy again where it is deployed: "),
        (lambda job: '{"format": 0}', "", "install the same version of scrapy_distributed on this node and here (0.1"),
        (lambda job: "[]", "", "install the same version"),
        (lambda job: receipt_of(job, stored=False), "", "could not open or store its feed"),
        (lambda job: receipt_of(job, finish_reason="shutdown"), "", "ended as 'shutdown', expected 'finished'"),
        (lambda job: receipt_of(job, final=False), "INFO: stop", "ended without a receipt"),
    ],
)
async def test_a_job_that_ends_badly(
    fake: FakeScrapyd, text: Callable[[FakeJob], str] | None, log: str, words: str
) -> None:
    finding = await probed(fake, ends(fake, text, log))
    assert finding.verdict is Verdict.FAIL
    assert words in finding.words


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("stats", "verdict", "words"),
    [
        ({}, Verdict.OK, " s"),
        ({"written/file": 2, "written/ftp": 1}, Verdict.OK, "written where its feed goes, and removed (file, ftp)"),
        ({"reached/ftp": 1}, Verdict.OK, "let it in; not tried whether it takes a file, as it would keep that (ftp)"),
        ({"untried/s3": 1}, Verdict.OK, " s; not tried whether its feed can be written (s3)"),
        ({"left/file": 1, "untried/s3": 1}, Verdict.WARN, "not tried whether its feed can be written (s3)"),
        ({"left/file": 1}, Verdict.WARN, "and could not be removed: remove *probe-JOB-* there (file)"),
    ],
)
async def test_what_the_job_has_found_at_its_feed(
    fake: FakeScrapyd, stats: dict[str, int], verdict: Verdict, words: str
) -> None:
    found = {f"distributed/probe/{name}": count for name, count in stats.items()}
    finding = await probed(fake, ends(fake, lambda job: receipt_of(job, stats=found)))
    assert finding.verdict is verdict
    assert finding.words.endswith(words.replace("JOB", fake.jobs[0].id))


@pytest_twisted.ensureDeferred
async def test_why_its_feed_was_not_stored_is_told(fake: FakeScrapyd) -> None:
    log = (
        "2026-11-27 [x] ERROR: This job ends at its start\nx.ConfigError: the feed can't be written here: OSError: full"
    )
    finding = await probed(fake, ends(fake, lambda job: receipt_of(job, stored=False), log))
    assert finding.verdict is Verdict.FAIL
    assert "could not open or store its feed: x.ConfigError: the feed can't be written here: OSError: full;" in (
        finding.words
    )


@pytest_twisted.ensureDeferred
async def test_a_job_that_stays_pending_is_taken_back(fake: FakeScrapyd) -> None:
    finding = await probed(fake, probe=a_probe(timeout=0.1))
    assert finding.verdict is Verdict.FAIL
    assert finding.words == (
        "the job was still pending after 0.1 s, and was taken back: it runs nothing and starts nothing, restart Scrapyd"
    )
    assert fake.jobs == []


@pytest_twisted.ensureDeferred
async def test_a_job_behind_others_is_taken_back(fake: FakeScrapyd) -> None:
    node = Node(address=fake.address)
    survey = Survey(project="p", spider="s")
    fake.jobs.append(FakeJob(id="j", project="q", spider="s", version=None, settings={}, args={}, state="running"))
    findings = await examine([node], survey, a_probe(timeout=0.1))
    await node.close()
    assert "1 jobs run there and may hold all slots" in findings[-1].words
    assert [job.id for job in fake.jobs] == ["j"]


@pytest_twisted.ensureDeferred
async def test_a_job_that_runs_on_is_ended(fake: FakeScrapyd) -> None:
    finding = await probed(fake, lambda job: setattr(job, "state", "running"), a_probe(timeout=0.5))
    assert "the job was still running after 0.5 s, and was ended" in finding.words


@pytest_twisted.ensureDeferred
async def test_a_job_that_the_node_loses(fake: FakeScrapyd) -> None:
    finding = await probed(fake, fake.jobs.remove, a_probe(timeout=0.5))
    assert "the node took the job and knows nothing of it after 0.5 s: restart Scrapyd" in finding.words


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("endpoint", ["schedule.json", "status.json"])
async def test_a_broken_line_leaves_no_job(fake: FakeScrapyd, endpoint: str) -> None:
    fake.faults[endpoint] = Fault.DROP_AFTER
    finding = await probed(fake)
    assert finding.verdict is Verdict.FAIL
    assert "broke before a complete answer" in finding.words
    assert "may still start there; it ends by itself" in finding.words
    assert fake.jobs == []


@pytest_twisted.ensureDeferred
async def test_an_interrupt_takes_the_job_back(fake: FakeScrapyd) -> None:
    probe = a_probe(timeout=60)
    stopped: list[Deferred[None]] = []
    finding = await probed(fake, lambda job: stopped.append(probe.stop()), probe)
    assert finding.words == "interrupted, the job was taken back"
    await stopped[0]
    assert (await probed(fake, probe=probe)).words == "interrupted before it was sent"
    assert fake.requests.count("POST schedule.json") == 1


@pytest_twisted.ensureDeferred
async def test_no_job_is_sent_where_its_receipt_can_not_come_home(fake: FakeScrapyd) -> None:
    fake.logs_dir = False
    assert (await probed(fake)).words == "not checked (no way home)"
    assert fake.jobs == []


# As a user types it, and real nodes


def active(folder: Path, *, addon: bool = True) -> Path:
    """A project with the spider ``quick`` for the fleet; without *addon* it has all but the line that activates us."""
    write_project(folder)
    (folder / "tiny" / "settings.py").write_text(
        'BOT_NAME = "tiny"\nSPIDER_MODULES = ["tiny.spiders"]\n'
        f'DISTRIBUTED_TARGET_FEED_URL = "file://{folder}/items/%(batch)s.jl"\n'
        + ('ADDONS = {"scrapy_distributed.Addon": 500}\n' if addon else "")
    )
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return active(tmp_path / "project")


def deployed(project: Path, node: ScrapydChild) -> str:
    """The node's host and port; it has the project."""
    place = f"127.0.0.1:{node.port}"
    assert scrapy(project, "fleet", "deploy", place, "--version", "r1").returncode == 0
    return place


def pending(node: ScrapydChild) -> int:
    return int(call(f"{node.url}/daemonstatus.json")["pending"])


def test_all_is_well(project: Path, tmp_path: Path) -> None:
    with start(tmp_path, name="n1") as one, start(tmp_path, name="n2") as two:
        places = [deployed(project, one), deployed(project, two)]
        result = scrapy(project, "fleet", "doctor", *places)
        assert result.returncode == 0, result.stdout + result.stderr
        lines = [line.split(None, 3) for line in result.stdout.splitlines()]
        checks = ["answers:", "credentials:", "project:", "version:", "spider:", "logs_dir:", "items_dir:", "probe:"]
        told = ("plugin:", "spider:", "requests", "fleet:", "items:", "job:")
        expected = [("here", check) for check in told]
        assert [(line[0], line[2]) for line in lines] == expected + [(p, check) for p in places for check in checks]
        assert {line[1] for line in lines if line[2] != "credentials:"} == {"ok"}
        assert {line[1] for line in lines if line[2] == "credentials:"} == {"risk"}  # nobody is asked for a password
        told = scrapy(project, "fleet", "doctor", *places, "--json", "--spider", "waiting", "--timeout", "4")
        answer = json.loads(told.stdout)
    probes = [line[3] for line in lines if line[2] == "probe:"]
    assert all(words.endswith("; a file was written where its feed goes, and removed (file)") for words in probes)
    assert (
        told.returncode == 1
    )  # a spider that wants to wait for ever: its job ends when it is idle for the second time, after 5 s
    assert (answer["project"], answer["spider"], answer["version"], answer["well"]) == ("tiny", "waiting", "r1", False)
    assert [check["node"] for check in answer["checks"] if check["verdict"] == "fail"] == places
    assert not (project / "items").exists()


def test_what_is_wrong_with_the_feeds(project: Path, tmp_path: Path) -> None:
    url = f"file://u:{SECRET}@{tmp_path}/items/%(batch)s.jl"

    def doctor(*settings: str) -> subprocess.CompletedProcess[str]:
        result = scrapy(project, "fleet", "doctor", place, *(word for one in settings for word in ("-s", one)))
        assert SECRET not in result.stdout + result.stderr
        return result

    def with_feed(url: str, **options: Any) -> subprocess.CompletedProcess[str]:
        feeds = json.dumps({url: options})
        return doctor("DISTRIBUTED_TARGET_FEED_URL=", f"DISTRIBUTED_TARGET_FEEDS={feeds}")

    (tmp_path / "ftp").mkdir()
    with start(tmp_path) as node:
        place = deployed(project, node)
        assert with_feed(url, store_empty=True).returncode == 0
        unknown = with_feed(url, format="nonsense")
        lacking = with_feed(url, item_filter="tiny.nothing.Filter")
        unfilled = with_feed(f"{url}/%(nobody)s", format="jl")
        refused = with_feed("file:///proc/nope/%(batch)s.jl")
        custom = with_feed("stdout:%(batch)s", format="jl")
        with ftp_server(tmp_path / "ftp") as server:
            kept = with_feed(f"{server.url}/%(batch)s.jl")
            assert server.landed() == []
    assert not (tmp_path / "items").exists()
    assert "FEED_URI/FEEDS: Scrapy has disabled the feed file://u@" in unknown.stdout
    assert "probe: the job ended without a receipt. Its log says: ModuleNotFoundError: No module" in lacking.stdout
    assert "it has a placeholder that nothing fills in" in unfilled.stdout
    assert "FAIL  probe: the job could not open or store its feed: " in refused.stdout
    assert "the feed in file:///proc/nope can't be written here: FileNotFoundError" in refused.stdout
    assert (custom.returncode, kept.returncode) == (0, 0)
    assert "not tried whether its feed can be written (stdout)" in custom.stdout
    assert "the server of its feed let it in; not tried whether it takes a file, as it would keep that (ftp)" in (
        kept.stdout
    )
    both = doctor(f"DISTRIBUTED_TARGET_FEEDS={json.dumps({url: {}})}")
    assert both.returncode == 2
    assert "DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS: found both" in both.stderr


def test_what_is_wrong_with_a_node(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each of them, with what mends it, and 1 as exit code."""
    with socket.socket() as down, start(tmp_path, name="locked", username="user-x", password=SECRET) as locked:
        down.bind(("127.0.0.1", 0))
        (tmp_path / ".scrapyd.conf").write_text("[scrapyd]\nitems_dir = items\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        with start(tmp_path, name="items") as items:
            place = deployed(project, items)
            (project / "scrapy.cfg").write_text(
                f"[settings]\ndefault = tiny.settings\n[deploy:items]\nurl = http://{place}\n"
                f"[deploy:down]\nurl = http://127.0.0.1:{down.getsockname()[1]}\n"
                f"[deploy:locked]\nurl = {locked.url}\nusername = user-x\npassword = wrong-{SECRET}\n"
            )
            result = scrapy(project, "fleet", "doctor")
    assert result.returncode == 1
    assert SECRET not in result.stdout + result.stderr
    failed = [line.split(None, 2) for line in result.stdout.splitlines() if " FAIL " in line]
    assert [line[0] for line in failed] == ["items", "down", "locked"]
    assert failed[0][2].startswith("items_dir: items_dir is set, so Scrapyd gives every job a second feed")
    assert failed[1][2].startswith("answers: connection refused at http://127.0.0.1:")
    assert failed[2][2].startswith("credentials: wrong or missing credentials (HTTP 401): set username and password")
    assert "down    -     spider: not checked (does not answer)\n" in result.stdout
    assert "items   ok    probe: " in result.stdout


def test_the_plugin_is_not_activated_here(tmp_path: Path) -> None:
    """A job has it activated all the same. The probe must fetch nothing."""
    project = active(tmp_path / "project", addon=False)
    with socket.socket() as site, start(tmp_path) as node:
        site.bind(("127.0.0.1", 0))
        site.listen()
        (project / "tiny" / "spiders.py").write_text(
            "import scrapy\nclass Own(scrapy.Spider):\n    name = 'own'\n"
            f"    start_urls = ['http://127.0.0.1:{site.getsockname()[1]}/']\n"
        )
        result = scrapy(project, "fleet", "doctor", deployed(project, node))
        site.setblocking(False)
        with pytest.raises(BlockingIOError):
            site.accept()
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if " FAIL " in line]
    assert line.split(None, 3)[:3] == ["here", "FAIL", "plugin:"]


def test_a_node_whose_slots_are_full(project: Path, tmp_path: Path) -> None:
    with start(tmp_path, max_proc=1) as node:
        place = deployed(project, node)
        settings = "DISTRIBUTED_ENABLED=False"
        call(f"{node.url}/schedule.json", project="tiny", spider="waiting", jobid="w1", setting=settings)
        wait_for(lambda: call(f"{node.url}/daemonstatus.json")["running"] == 1)
        result = scrapy(project, "fleet", "doctor", place, "--timeout", "0.5")
        assert pending(node) == 0
    assert result.returncode == 1
    assert "still pending after 0.5 s, and was taken back: 1 jobs run there" in result.stdout


def test_ctrl_c_takes_the_job_back(project: Path, tmp_path: Path) -> None:
    with start(tmp_path, poll_interval=3600) as node:
        doctor = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "fleet", "doctor", deployed(project, node)],
            cwd=project,
            env=environment(project),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: pending(node))
        doctor.send_signal(signal.SIGINT)
        output, errors = doctor.communicate(timeout=60)
        assert pending(node) == 0
    assert (doctor.returncode, errors) == (1, "")
    assert "probe: interrupted, the job was taken back" in output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["127.0.0.1:1", "-a", "site"], "-a site: expected -a NAME=VALUE"),
        (["127.0.0.1:1", "--timeout", "0"], "expected at least 0.1"),
        (["127.0.0.1:1", "-s", "DISTRIBUTED_WAIT=maybe"], "DISTRIBUTED_WAIT: found 'maybe', expected True or False"),
        ([], "no nodes: set DISTRIBUTED_TARGET_HOSTS"),
    ],
)
def test_wrong_command_lines(project: Path, args: list[str], words: str) -> None:
    result = scrapy(project, "fleet", "doctor", *args)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_project(tmp_path: Path) -> None:
    result = scrapy(tmp_path, "fleet", "doctor", "127.0.0.1:1")
    assert result.returncode == 2
    assert "no spider: expected one in the project of this folder" in result.stderr
    result = scrapy(tmp_path, "fleet", "doctor", "127.0.0.1:1", "--spider", "s", "--project", "p")
    assert result.returncode == 1
    assert "FAIL  answers: " in result.stdout


def test_a_worker_tells_that_its_own_scrapyd_lets_it_in(project: Path, tmp_path: Path) -> None:
    """The node is asked by its address in both cases; with a password of its own it refuses the worker."""
    with start(tmp_path, name="open") as one, start(tmp_path, name="locked", username="u", password=SECRET) as two:
        (project / "scrapy.cfg").write_text(
            f"[settings]\ndefault = tiny.settings\n[deploy:open]\nurl = {one.url}\nusername = u\npassword = x\n"
            f"[deploy:locked]\nurl = {two.url}\nusername = u\npassword = {SECRET}\n"
        )
        assert scrapy(project, "fleet", "deploy").returncode == 0
        result = scrapy(project, "fleet", "doctor", "--json")
        receipts = {node.name: (node.dir / "logs").rglob("doctor-*.json") for node in (one, two)}
        told = {name: "distributed/open_scrapyd" in next(found).read_text() for name, found in receipts.items()}
    assert told == {"open": True, "locked": False}
    assert result.returncode == 0, result.stdout
    checks = {(one["node"], one["check"]): one["verdict"] for one in json.loads(result.stdout)["checks"]}
    assert (checks["open", "credentials"], checks["locked", "credentials"]) == ("risk", "ok")
