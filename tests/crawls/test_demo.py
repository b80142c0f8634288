"""The whole demo, as ``make demo`` starts it: when all is well, when something is killed, and after Ctrl-C."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crawling import EXAMPLE, call, wait_for
from demo import in_use, make_work_folder, use

PROC = Path("/proc")
MARK = "DEMO_OF_A_TEST"
MOST_CPU_SECONDS = 40
"""Of a demo with 600 properties, which takes a tenth more than one without workers on this machine: that took 7.6 on a
machine that had nothing else to do, and 27 on one with three times as much to do as it had cores."""


def test_old_runs_are_removed_but_not_those_under_way_and_those_that_failed_displace_none(tmp_path: Path) -> None:
    names = [f"2026{number:02}" for number in range(10)]
    for name in names:
        (tmp_path / name).mkdir()
    for name in names[:6]:
        (tmp_path / name / "report.html").touch()
    under_way = use(tmp_path / names[0])
    try:
        new = make_work_folder(tmp_path)
        assert sorted(folder.name for folder in tmp_path.iterdir()) == [names[0], *names[4:6], *names[8:], new.name]
    finally:
        os.close(under_way)
    assert not in_use(tmp_path / names[0])


needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="needs /proc, to find a process of the demo")


class Demo:
    """A demo under way. All its processes inherit a mark, by which those that it has left are found."""

    def __init__(self, work: Path, *options: str, **environment: str) -> None:
        self.work = work
        self.mark = uuid.uuid4().hex
        self._output = work.with_name(f"{work.name}.txt")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLE / "demo" / "demo.py"), "--work", str(work), *options],
                env={**os.environ, MARK: self.mark, "PYTHONDONTWRITEBYTECODE": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str) -> None:
        def has_come() -> bool:
            assert self.process.poll() is None, self.output
            return re.search(pattern, self.output, re.MULTILINE) is not None

        wait_for(has_come, 60)

    def wait(self) -> int:
        return self.process.wait(120)

    def pids(self, part: str = "") -> list[int]:
        """Its processes, besides itself, with *part* in their command line or working folder."""
        found = []
        for folder in PROC.glob("[0-9]*"):
            try:
                marked = f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes()
                told = (folder / "cmdline").read_text(errors="replace") + os.readlink(folder / "cwd")
            except OSError:  # it has ended, or is not ours
                continue
            if marked and part in told and int(folder.name) != self.process.pid:
                found.append(int(folder.name))
        return found


def cpu_seconds() -> float:
    """Of all children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    demos: list[Demo] = []

    def started(*options: str, **environment: str) -> Demo:
        demos.append(Demo(tmp_path / "work", *options, **environment))
        return demos[-1]

    yield started
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.terminate()
            demo.process.wait(60)
    if PROC.is_dir():
        assert not [pid for demo in demos for pid in demo.pids()]


def test_from_the_empty_machine_to_the_report(start: Start) -> None:
    before = cpu_seconds()
    demo = start("--properties", "600", "--batch", "100")
    assert demo.wait() == 0, demo.output
    assert cpu_seconds() - before < MOST_CPU_SECONDS
    said = demo.output
    assert "local      2 workers on this machine, which the crawl starts by itself" in said
    assert re.search(r" \| local running [12], pending \d+, done \d+ \| :\d+ running ", said)
    (by_node,) = re.findall(r"^nodes +(local: .+)$", said, re.MULTILINE)
    here, *there = (int(items) for items in re.findall(r": (\d+)", by_node))
    assert here + sum(there) == 600
    assert here
    assert any(there)
    assert "items      600 items for 600 properties: each exactly once" in said
    assert "failures   none" in said
    assert re.search(r"^ +jacuzzi +\+17\.5% +[+-]\d+\.\d% +\d+\.\d% +\d+$", said, re.MULTILINE)
    assert re.search(r"\d of 8 words have the truth within two standard errors", said)
    assert re.search(r"^ +\w+ [+-].*\(600 items\)$", said, re.MULTILINE)
    assert said.endswith("result     complete\n")
    report = (demo.work / "report.html").read_text()
    assert "Complete." in report
    assert "jacuzzi" in report
    assert "local are the workers" in re.sub("<[^>]*>", "", report)
    assert len(list((demo.work / "items").iterdir())) == 6
    assert not list((demo.work / "staging").iterdir())
    assert len((demo.work / "merged" / "items.jl").read_text().splitlines()) == 600


def test_workers_that_join_a_run_in_redis(start: Start) -> None:
    demo = start("--carrier", "redis", "--properties", "300")
    assert demo.wait() == 0, demo.output
    said = demo.output
    assert re.search(r"^redis +redis://127\.0\.0\.1:\d+/0$", said, re.MULTILINE)
    assert re.search(r" \| worker1 running [01], pending 0, done \d+ \| worker2 running ", said)
    ((one, two),) = re.findall(r"^nodes +worker1: (\d+), worker2: (\d+)$", said, re.MULTILINE)
    assert int(one) + int(two) == 300
    assert re.search(r"^balance +run \S+, spider distr of properties \(redis://127", said, re.MULTILINE)
    assert "items      300 items for 300 properties: each exactly once" in said
    assert said.endswith("result     complete\n")
    report = (demo.work / "report.html").read_text()
    assert "Complete." in report
    assert "worker2" in report
    assert not (demo.work / "ledger.sqlite").exists()


@needs_proc
def test_what_a_worker_had_that_is_gone_goes_to_another(start: Start) -> None:
    demo = start("--carrier", "redis", "--properties", "60", "--latency", "1")
    demo.wait_for("worker1 running 1.*worker2 running 1")
    one, _ = sorted(demo.pids("\0worker\0redis://"))
    os.killpg(one, signal.SIGKILL)
    assert demo.wait() == 0, demo.output
    assert demo.output.endswith("result     complete\n")


def test_one_property_is_too_few_to_tell_and_still_complete(start: Start) -> None:
    demo = start("--properties", "1", "--local", "0", "--nodes", "1", "--warm")
    assert demo.wait() == 0, demo.output
    assert "local" not in demo.output
    assert "items      1 item for 1 property: each exactly once" in demo.output
    assert "too few items to tell" in demo.output


def test_workers_on_this_machine_alone_need_no_scrapyd(start: Start, tmp_path: Path) -> None:
    (tmp_path / "none" / "scrapyd").mkdir(parents=True)
    (tmp_path / "none" / "scrapyd" / "__init__.py").write_text("raise ImportError('there is none')\n")
    demo = start("--properties", "60", "--nodes", "0", "--batch", "20", PYTHONPATH=str(tmp_path / "none"))
    assert demo.wait() == 0, demo.output
    assert re.search("^nodes +local: 60$", demo.output, re.MULTILINE)
    assert "deploy" not in demo.output
    assert demo.output.endswith("result     complete\n")


@needs_proc
def test_what_a_node_had_that_is_gone_goes_to_another(start: Start) -> None:
    demo = start("--properties", "60", "--local", "0", "--nodes", "2", "--latency", "1", "--batch", "30", "--warm")
    demo.wait_for("^crawl ")
    (site,) = re.findall("^site +(http://[^,]+),", demo.output, re.MULTILINE)
    wait_for(lambda: call(f"{site}/stats.json")["properties_served"])  # at once: its job takes only two seconds
    (node,) = demo.pids(f"--pidfile=\0{demo.work.resolve()}/nodes/scrapyd1")
    os.killpg(node, signal.SIGKILL)  # with its workers, as if the machine were gone
    assert demo.wait() == 0, demo.output
    assert "does not answer" in demo.output
    assert re.search(r"^nodes +127\.0\.0\.1:\d+: 0, 127\.0\.0\.1:\d+: 60$", demo.output, re.MULTILINE)
    assert "0 of 1<" in (demo.work / "report.html").read_text()
    assert demo.output.endswith("result     complete\n")


@needs_proc
@pytest.mark.parametrize(("server", "command"), [("ftp", "ftp_server.py"), ("fleet", "scrapy\0fleet\0up")])
def test_a_server_that_is_killed_ends_it(start: Start, server: str, command: str) -> None:
    demo = start("--properties", "60", "--local", "1", "--nodes", "1", "--latency", "1", "--batch", "20", "--warm")
    demo.wait_for(r"[1-9]\d*/60 properties")
    (pid,) = demo.pids(command)
    os.kill(pid, signal.SIGKILL)
    assert demo.wait() == 1
    assert f"{server} ended too early, coordinator can't go on without it: it ended by signal 9" in demo.output
    assert "Everything that was started has ended; logs: " in demo.output
    assert not (demo.work / "report.html").exists()


def test_ctrl_c_ends_all(start: Start) -> None:
    demo = start("--properties", "60", "--local", "1", "--nodes", "1", "--latency", "1", "--batch", "20", "--warm")
    demo.wait_for(r"[1-9]\d*/60 properties")
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait() == 130
    assert "ended by SIGINT\nEverything that was started has ended" in demo.output


@needs_proc
def test_workers_on_this_machine_end_before_the_demo_where_the_crawl_is_killed(start: Start) -> None:
    demo = start("--properties", "60", "--nodes", "0", "--latency", "2", "--batch", "20")
    demo.wait_for(r"[1-9]\d*/60 properties.* local running [12]")
    (pid,) = demo.pids("\0crawl\0distr")
    workers = demo.pids("fork_server")
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not demo.pids("site_server.py"))
    time.sleep(1)  # it would be over by then
    still = demo.process.poll() is None
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    assert demo.wait() == 1
    assert still
    assert "the crawl failed, it ended by signal 9" in demo.output


@pytest.mark.parametrize("left", ["ledger.sqlite", "items/1_distr.jl"])
def test_the_folder_of_another_run_is_refused(start: Start, tmp_path: Path, left: str) -> None:
    file = tmp_path / "work" / left
    file.parent.mkdir(parents=True)
    file.touch()
    demo = start("--properties", "60")
    assert demo.wait() == 2
    assert re.search("argument --work: .*/work has the ledger or items of an earlier run", demo.output)
    assert [path for path in demo.work.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize(("option", "value"), [("--properties", "0"), ("--batch", "-1")])
def test_numbers_are_at_least_1(start: Start, option: str, value: str) -> None:
    demo = start(option, value)
    assert demo.wait() == 2
    assert f"argument {option}: {value} is less than 1" in demo.output
    assert not demo.work.exists()


@pytest.mark.parametrize("option", ["--local", "--nodes"])
def test_a_kind_of_node_can_be_left_out_and_not_both(start: Start, option: str) -> None:
    demo = start(option, "-1")
    assert demo.wait() == 2
    assert f"argument {option}: -1 is less than 0" in demo.output
    demo = start("--local", "0", "--nodes", "0")
    assert demo.wait() == 2
    assert "arguments --local and --nodes: both are 0, expected somebody who crawls" in demo.output
    assert not demo.work.exists()


def test_nodes_are_no_part_of_a_run_in_redis(start: Start) -> None:
    demo = start("--carrier", "redis", "--nodes", "2")
    assert demo.wait() == 2
    assert "argument --nodes: found 2 with --carrier redis, expected 0" in demo.output
    assert not demo.work.exists()
