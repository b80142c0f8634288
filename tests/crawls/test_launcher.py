"""Warm start: real nodes with the launcher, and one with Scrapyd's own beside them."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import scrapy
from crawling import call, wait_for
from late_imports import late_imports
from tiny_project import SPIDERS

from scrapy_distributed.fleet.egg import build_egg
from scrapy_distributed.fleet.local_node import LocalNode, end, start

PROBE = '''
import atexit
import gc
import gzip
import json
import logging
import os
import signal
import sys
import threading
import time
import weakref

STARTED = []


def kind(descriptor):
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # that of the listing itself
        return None
    return target.partition(":")[0] if "[" in target else target


class Probe(scrapy.Spider):
    """Tells what a job sees of its process, and then leaves a mess there."""

    name = "probe"
    custom_settings = {"TELNETCONSOLE_ENABLED": False}

    async def start(self):
        STARTED.append(self.name)
        state = {
            "started": STARTED,
            "mess": getattr(scrapy, "mess", None),
            "pid": os.getpid(),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "path": sys.path,
            "arguments": sys.argv,
            "main": sys.modules["__main__"].__spec__.name,
            "signals": {number: getattr(signal.getsignal(number), "__qualname__", signal.getsignal(number))
                        for number in range(1, signal.NSIG)},
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "descriptors": sorted(filter(None, map(kind, os.listdir("/proc/self/fd")))),
            "threads": threading.active_count(),
            "handlers": [str(type(handler)) for handler in logging.root.handlers],
            "collector": [gc.isenabled(), gc.get_threshold()],
            "session": [os.getsid(0), os.getpgrp()],
            "nice": os.nice(0),
            "umask": os.umask(0o22),
            "version": VERSION,
            "modules": sorted(sys.modules),
        }
        with open(self.report, "w") as report:
            json.dump(state, report)
        scrapy.mess = "left"
        os.environ["MESS"] = "left"
        os.chdir("/")
        os.umask(0)
        sys.path.append("/left")
        return
        yield


class Deleted:
    def __init__(self, file):
        self.file = open(file, "w")

    def __del__(self):
        self.file.write("deleted")


class Leaving(scrapy.Spider):
    """Leaves files open, and much to do for the exit."""

    name = "leaving"

    async def start(self):
        global compressed, deleted, plain
        plain = open(self.folder + "/plain", "w")
        plain.write("of the module")
        compressed = gzip.open(self.folder + "/compressed", "wt")
        compressed.write("of the module")
        deleted = Deleted(self.folder + "/deleted")
        self.finalized = weakref.finalize(self, self.write, self.folder + "/finalized")
        atexit.register(self.write, self.folder + "/atexit")
        threading.Thread(target=self.late).start()
        print("printed")
        return
        yield

    def late(self):
        time.sleep(0.5)
        self.write(self.folder + "/thread")

    @staticmethod
    def write(file):
        open(file, "w").write("written")


class Ending(scrapy.Spider):
    name = "ending"

    async def start(self):
        os._exit(7)
        yield
'''


def egg(folder: Path, version: str) -> bytes:
    package = folder / "probe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text('BOT_NAME = "probe"\nSPIDER_MODULES = ["probe.spiders"]\n')
    (package / "spiders.py").write_text(f"{SPIDERS}\n{PROBE}\nVERSION = {version!r}\n")
    return build_egg(folder, "probe.settings")


class Node:
    """A node that has the project ``probe`` in the versions r1 and r2."""

    def __init__(self, node: LocalNode) -> None:
        self.local = node
        self.folder = node.folder
        self._jobs = 0

    def schedule(self, spider: str, **form: str) -> str:
        self._jobs += 1
        job = f"{spider}{self._jobs}"
        answer = call(f"{self.local.url}/schedule.json", project="probe", spider=spider, jobid=job, **form)
        assert answer["status"] == "ok", answer
        return job

    def state(self, job: str) -> str | None:
        state: str | None = call(f"{self.local.url}/status.json?job={job}")["currstate"]
        return state

    def pid(self, job: str) -> int:
        """Of a running job, as soon as its log says that the spider is open."""
        wait_for(lambda: "Spider opened" in self.job_log(job))
        running = call(f"{self.local.url}/listjobs.json")["running"]
        return next(int(one["pid"]) for one in running if one["id"] == job)

    def cancel(self, job: str, **form: str) -> str:
        prevstate: str = call(f"{self.local.url}/cancel.json", project="probe", job=job, **form)["prevstate"]
        return prevstate

    def wait(self, job: str) -> str:
        """Scrapyd's line about the end of *job*."""
        wait_for(lambda: self.state(job) == "finished")
        return next(
            line for line in self.log().splitlines() if f"job={job!r}" in line and "Process started" not in line
        )

    def job_log(self, job: str) -> str:
        file = self.folder / "logs" / "probe" / job.rstrip("0123456789") / f"{job}.log"
        return file.read_text() if file.exists() else ""

    def log(self) -> str:
        return self.local.log.read_text(errors="replace")

    def probe(self, **form: str) -> dict[str, Any]:
        file = self.folder / f"report{self._jobs}.json"
        self.wait(self.schedule("probe", report=str(file), **form))
        text = file.read_text().replace(str(self.folder), "NODE").replace(file.name, "report.json")
        report: dict[str, Any] = json.loads(re.sub(r"probe\d+", "JOB", text))
        return report

    def warm_pids(self) -> list[int]:
        """Of all warm processes that this node has had, the last one last."""
        return [int(pid) for pid in re.findall(r"The warm process is ready: pid=(\d+)", self.log())]


@contextmanager
def node(folder: Path, *, warm: bool = True, max_proc: int = 2, poll_interval: float = 5.0) -> Iterator[Node]:
    local = LocalNode(name=folder.name, folder=folder, max_proc=max_proc, poll_interval=poll_interval, warm=warm)
    for version in ("r1", "r2"):
        file = folder / "eggs" / "probe" / f"{version}.egg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(egg(folder / "source" / version, version))
    try:
        start([local])
        yield Node(local)
    finally:
        assert end([local], grace_seconds=5) == []


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("warm")) as one:
        wait_for(one.warm_pids)
        yield one


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("stock"), warm=False, poll_interval=0.1) as one:
        yield one


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_a_job_sees_what_it_sees_under_scrapyds_own_launcher(warm: Node, stock: Node) -> None:
    ours, theirs = warm.probe(setting="MARK=1"), stock.probe(setting="MARK=1")
    for one, node in ((ours, warm), (theirs, stock)):
        assert one.pop("session") == [node.local.process.pid, node.local.process.pid]  # type: ignore[union-attr]
        del one["pid"], one["modules"]
    assert set(ours["environment"]) == set(theirs["environment"])
    assert {ours["environment"][key] for key in ("SCRAPY_PROJECT", "SCRAPY_SETTINGS_MODULE")} == {
        "probe",
        "probe.settings",
    }
    del ours["environment"], theirs["environment"]
    # One more than there, on which Scrapyd hears the end of the job.
    theirs["descriptors"] = sorted([*theirs["descriptors"], "pipe"])
    assert ours == theirs


def test_nothing_is_left_over_from_job_to_job(warm: Node) -> None:
    first, second = warm.probe(), warm.probe()
    assert first.pop("pid") != second.pop("pid")
    assert first == second
    assert first["mess"] is None
    assert first["started"] == ["probe"]
    assert "MESS" not in first["environment"]


def test_egg_versions_one_after_another(warm: Node) -> None:
    versions = [warm.probe(**form)["version"] for form in ({"_version": "r1"}, {"_version": "r2"}, {"_version": "r1"})]
    assert versions == ["r1", "r2", "r1"]
    reports = [warm.probe(_version="r1"), warm.probe()]
    assert [report["environment"].get("SCRAPYD_EGG_VERSION") for report in reports] == ["r1", None]


@pytest.mark.skipif(scrapy.version_info < (2, 15), reason="Scrapy has no TWISTED_REACTOR_ENABLED before 2.15")
def test_with_and_without_a_reactor(warm: Node) -> None:
    without = warm.probe(setting="TWISTED_REACTOR_ENABLED=False")["modules"]
    assert "twisted.internet.reactor" not in without
    assert "twisted.internet.reactor" in warm.probe()["modules"]


def test_a_worker_imports_next_to_nothing(warm: Node) -> None:
    """A new Scrapy that imports more on its way shows here."""
    pid = warm.warm_pids()[-1]
    modules = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[3:-1]  # behind python -m and its own name
    assert "scrapyd.eggstorage" in modules
    late = {name for name in late_imports(warm.probe()["modules"], *modules) if not name.startswith("probe")}
    assert late == {"twisted.internet.reactor"}


def test_signals(warm: Node) -> None:
    jobs = [warm.schedule("waiting", secret="s3cr3t-Pa55"), warm.schedule("waiting", secret="s3cr3t-Pa55")]
    pids = [warm.pid(job) for job in jobs]
    assert len({*pids, *warm.warm_pids(), warm.local.process.pid}) == 4  # type: ignore[union-attr]
    assert all("s3cr3t" not in command_line(pid) for pid in pids)
    assert Path(f"/proc/{pids[0]}/comm").read_text() == "crawl waiting\n"
    assert [warm.state(job) for job in jobs] == ["running", "running"]
    assert warm.cancel(jobs[0]) == "running"
    assert "Process finished" in warm.wait(jobs[0])
    assert "Received SIGINT, shutting down gracefully" in warm.job_log(jobs[0])
    assert warm.state(jobs[1]) == "running"
    assert warm.cancel(jobs[1], signal="KILL") == "running"
    assert "Process died: exitstatus=None" in warm.wait(jobs[1])
    assert not any(alive(pid) for pid in pids)


def test_a_job_that_is_cancelled_at_once_ends(warm: Node) -> None:
    """Before it is ready for SIGINT, the signal waits."""
    job = warm.schedule("waiting")
    wait_for(lambda: warm.state(job) == "running")
    assert warm.cancel(job) == "running"
    warm.wait(job)


def test_exit_status(warm: Node) -> None:
    assert "Process died: exitstatus=7" in warm.wait(warm.schedule("ending"))


def test_the_end_of_a_job_is_as_complete_as_under_scrapyds_own_launcher(
    warm: Node, stock: Node, tmp_path: Path
) -> None:
    left = []
    for one in (warm, stock):
        folder = tmp_path / one.folder.name
        folder.mkdir()
        job = one.schedule("leaving", folder=str(folder))
        assert "Process finished" in one.wait(job)
        assert "/stdout] printed" in one.log()
        assert "Spider closed (finished)" in one.job_log(job)
        left.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert gzip.decompress(left[0].pop("compressed")) == b"of the module"
    # Not compared: of it, Scrapyd's own leaves the first bytes alone with Scrapy 2.14. Python has emptied the module
    # gzip then before it lets go of the file.
    del left[1]["compressed"]
    assert left[0] == left[1]
    assert left[0]["plain"] == b"of the module"
    assert left[0]["atexit"] == left[0]["thread"] == left[0]["finalized"] == b"written"
    assert left[0]["deleted"] == b"deleted"


def test_an_argument_of_a_megabyte(warm: Node) -> None:
    job = warm.schedule("quick", payload="x" * 1_000_000, setting="MARK=" + "y" * 200_000)
    assert "Process finished" in warm.wait(job)
    assert "'payload': 1000000" in warm.job_log(job)
    assert "xxx... (1000008 characters)" in warm.log()
    assert len(warm.log()) < 500_000


def test_a_job_starts_at_once(warm: Node) -> None:
    """The node looks at its queue every 5 s."""
    warm.probe()  # the first job of a version waits for the list of its spiders
    before = time.monotonic()
    for job in [warm.schedule("quick") for _ in range(5)]:  # on two slots
        warm.wait(job)
    assert time.monotonic() - before < 4


def test_a_job_that_can_not_be_started_costs_no_slot(warm: Node) -> None:
    for _ in range(3):  # on two slots
        answer = call(f"{warm.local.url}/schedule.json", project="probe", spider="quick", jobid="../../../../etc/x")
        assert answer["status"] == "ok"
    warm.wait(warm.schedule("quick"))
    assert "Job '../../../../etc/x' could not be started, and is lost" in warm.log()


def test_a_machine_that_can_start_no_job_now_costs_none(warm: Node) -> None:
    logs, away = warm.local.folder / "logs", warm.local.folder / "logs-away"
    logs.rename(away)
    logs.touch()  # so that no log can be written
    try:
        jobs = [warm.schedule("quick") for _ in range(3)]  # on two slots
        wait_for(lambda: f"Job {jobs[0]!r} can't be started now" in warm.log())
    finally:
        logs.unlink()
        away.rename(logs)
    for job in jobs:
        assert "Process finished" in warm.wait(job)


def test_the_warm_process_is_killed(tmp_path: Path) -> None:
    with node(tmp_path / "node") as one:
        (pid,) = wait_for(one.warm_pids)
        before = one.schedule("waiting")
        running = one.pid(before)
        assert parent(running) == pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "There is no warm process; the next one starts in 1.0 s" in one.log())
        during = one.schedule("quick", payload="x" * 1_000_000)
        assert "Process finished" in one.wait(during)
        assert f"Cold start of job {during!r}: the warm process can't be used" in one.log()
        assert "'payload': 1000000" in one.job_log(during)
        wait_for(lambda: len(one.warm_pids()) == 2)
        after = one.schedule("quick")
        assert "Process finished" in one.wait(after)
        assert f"Cold start of job {after!r}" not in one.log()
        assert one.state(before) == "running"
        one.cancel(before)
        assert "Process died: exitstatus=None" in one.wait(before)
        assert f"The warm process ended before pid {running}: its exit status is unknown" in one.log()
        assert "Spider closed (shutdown)" in one.job_log(before)


def test_the_warm_process_hangs(tmp_path: Path) -> None:
    with node(tmp_path / "node", max_proc=1) as one:
        (pid,) = wait_for(one.warm_pids)
        os.kill(pid, signal.SIGSTOP)
        job = one.schedule("quick")
        assert "Process finished" in one.wait(job)
        assert f"Cold start of job {job!r}" in one.log()
        assert one.log().count(f"job={job!r}") == 2  # its start and its end
        wait_for(lambda: len(one.warm_pids()) == 2)
        job = one.schedule("waiting")
        running = one.pid(job)
        os.kill(one.warm_pids()[-1], signal.SIGSTOP)
        os.kill(running, signal.SIGKILL)  # nobody tells, until the warm process is asked how it is
        assert "Process died" in one.wait(job)


def test_the_node_is_killed(tmp_path: Path) -> None:
    with node(tmp_path / "node") as one:
        (pid,) = wait_for(one.warm_pids)
        job = one.schedule("waiting")
        running = one.pid(job)
        os.kill(one.local.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        wait_for(lambda: not alive(pid))
        assert alive(running)
        os.kill(running, signal.SIGINT)
        wait_for(lambda: not alive(running))
        assert "Spider closed (shutdown)" in one.job_log(job)


def test_packages_are_installed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(packages))
    with node(tmp_path / "node") as one:
        (pid,) = wait_for(one.warm_pids)
        running = one.schedule("waiting")
        one.pid(running)
        (packages / "another.py").touch()
        job = one.schedule("quick")
        assert "Process finished" in one.wait(job)
        assert "Packages were installed or removed: the warm process is replaced" in one.log()
        wait_for(lambda: len(one.warm_pids()) == 2)
        assert alive(pid)  # until its last job has told how it ended
        one.cancel(running)
        assert "Process finished" in one.wait(running)
        wait_for(lambda: not alive(pid))


def test_a_warm_process_that_is_not_fit_for_forking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with the name of an optional one starts a thread when it is imported."""
    code = "import threading\n\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "uvloop.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with node(tmp_path / "node") as one:
        job = one.schedule("quick")
        assert "Process finished" in one.wait(job)
        assert f"Cold start of job {job!r}" in one.log()
        wait_for(lambda: "the next one starts in 2.0 s" in one.log())
        assert "found the threads" in one.log()  # Scrapyd logs what a process writes as it comes, in pieces
        assert "There is no warm process; the next one starts in 1.0 s" in one.log()


def test_another_runner_starts_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_runner.py").write_text(
        "from scrapyd.runner import main\n\nprint('my runner', flush=True)\nmain()\n"
    )
    (tmp_path / ".scrapyd.conf").write_text("[scrapyd]\nrunner = my_runner\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with node(tmp_path / "node") as one:
        job = one.schedule("quick", payload="x" * 1_000_000)
        assert "Process finished" in one.wait(job)
        assert "'payload': 1000000" in one.job_log(job)
        assert "/stdout] my runner" in one.log()
        assert "Every job starts cold: found runner=my_runner, expected scrapyd.runner" in one.log()
        assert one.warm_pids() == []


def test_no_job_has_the_password_of_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password without a user, so that the node asks nobody here."""
    own = LocalNode._environment
    monkeypatch.setattr(LocalNode, "_environment", lambda self: own(self) | {"SCRAPYD_PASSWORD": "s3cr3t-Pa55"})
    with node(tmp_path / "node") as one:
        wait_for(one.warm_pids)
        report = one.probe()
        assert one.local.process is not None
        begun = [Path(f"/proc/{pid}/environ").read_bytes() for pid in (one.local.process.pid, *one.warm_pids())]
    assert [b"s3cr3t-Pa55" in environment for environment in begun] == [True, False]
    assert "SCRAPYD_HTTP_PORT" in report["environment"]
    assert "SCRAPYD_PASSWORD" not in report["environment"]


def test_fleet_up_warm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scrapy", "fleet", "up", "1", "--warm", "--port", "0", "--dir", str(tmp_path)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCRAPY")}
    kept["XDG_STATE_HOME"] = str(tmp_path / "state")
    with subprocess.Popen(command, cwd=tmp_path, env=kept, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" in process.stdout
            wait_for(lambda: "The warm process is ready" in (tmp_path / "scrapyd1" / "scrapyd.log").read_text())
        finally:
            process.terminate()
    assert process.returncode == 0
