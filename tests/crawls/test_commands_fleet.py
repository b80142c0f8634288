"""``scrapy fleet`` and ``scrapy monitor`` as a user types them: real processes, real nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from crawling import call, wait_for
from scrapy_command import DEADLINE_SECONDS, environment, scrapy
from scrapyd_child import start
from tiny_project import write_project

SECRET = "s3cr3t-Pa55"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


class Up:
    """A running ``scrapy fleet up`` in *folder*: the ``urls`` that it printed, and its ``process``."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.urls: list[str] = []
        assert process.stdout
        for line in process.stdout:
            if line == "ready\n":
                return
            match = re.fullmatch(r"scrapyd\d+ listening at (http://127.0.0.1:\d+)\n", line)
            assert match, line
            self.urls.append(match[1])
        raise AssertionError(process.stderr and process.stderr.read())

    @property
    def password(self) -> str:
        return (self.folder / ".scrapy/fleet/password").read_text()

    def call(self, path: str, *, node: int = 0, **form: str) -> dict[str, object]:
        """What a node answers to its user and password."""
        request = Request(f"{self.urls[node]}/{path}", data=urlencode(form).encode() if form else None)
        request.add_header("Authorization", f"Basic {b64encode(f'scrapy:{self.password}'.encode()).decode()}")
        with urlopen(request, timeout=DEADLINE_SECONDS) as response:
            answer: dict[str, object] = json.loads(response.read())
        return answer

    def wait_until_running(self, job: str) -> None:
        wait_for(lambda: self.call(f"status.json?job={job}")["currstate"] == "running", DEADLINE_SECONDS)

    def groups(self) -> list[int]:
        """The process groups of its nodes."""
        return [int(pid) for pid in children(self.process.pid)]


@contextmanager
def fleet_up(folder: Path, *args: str, **more: str) -> Iterator[Up]:
    process = subprocess.Popen(
        [sys.executable, "-m", "scrapy", "fleet", "up", *args],
        cwd=folder,
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Up(process, folder)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_SECONDS)


def children(pid: int) -> list[str]:
    return subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()


def members(group: int) -> list[str]:
    """Processes of a group that are no zombies."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True).stdout.splitlines()
    return [line for line in listed if line.split()[0] == str(group) and not line.split()[1].startswith("Z")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_deploy_monitor_and_an_end_without_remains(project: Path, number: signal.Signals) -> None:
    with fleet_up(project, "2", "--port", "0", "--poll-interval", "0.1") as up:
        assert len(up.urls) == 2
        before = sorted(path for path in project.rglob("*") if ".scrapy" not in path.parts)
        hosts = [url.removeprefix("http://") for url in up.urls]
        deployed = scrapy(project, "fleet", "deploy", *hosts)
        assert deployed.returncode == 0, deployed.stderr
        assert [line.split(" ", 1)[0] for line in deployed.stdout.splitlines()] == hosts
        assert re.findall(r" tiny (\d{10}): 2 spiders\n", deployed.stdout)
        assert sorted(path for path in project.rglob("*") if ".scrapy" not in path.parts) == before

        up.call("schedule.json", project="tiny", spider="waiting", jobid="w1")
        up.wait_until_running("w1")
        shown = scrapy(project, "monitor", "--once", "--json", *hosts)
        assert shown.returncode == 0, shown.stderr
        snapshot = json.loads(shown.stdout)
        assert snapshot["project"] == "tiny"
        assert [(node["name"], node["running"], node["pending"]) for node in snapshot["nodes"]] == [
            (hosts[0], 1, 0),
            (hosts[1], 0, 0),
        ]
        groups = up.groups()
        assert [len(members(group)) for group in groups] == [2, 1]
        up.process.send_signal(number)
        _, errors = up.process.communicate(timeout=DEADLINE_SECONDS)
        assert up.process.returncode == 0, errors
        assert [members(group) for group in groups] == [[], []]


def test_a_fleet_that_is_killed_leaves_no_node(project: Path) -> None:
    with fleet_up(project, "2", "--port", "0", "--poll-interval", "0.1", "--warm") as up:
        assert scrapy(project, "fleet", "deploy", up.urls[0].removeprefix("http://")).returncode == 0
        up.call("schedule.json", project="tiny", spider="waiting", jobid="w1")
        up.wait_until_running("w1")
        groups = up.groups()
        assert len(members(groups[0])) > 1
        up.process.kill()
        up.process.wait()
        wait_for(lambda: [members(group) for group in groups] == [[], []])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_node_is_started_ends_that_node(project: Path, number: signal.Signals) -> None:
    """The signal comes when the child is there, and its starter does not know its pid yet."""
    code = (
        "import os, subprocess\n"
        "from scrapy.cmdline import execute\n"
        "started, popen = [], subprocess.Popen\n"
        "def signalled(*args, **kwargs):\n"
        "    started.append(popen(*args, **kwargs))\n"
        f"    os.kill(os.getpid(), {number:d})\n"
        "    return started[-1]\n"
        "subprocess.Popen = signalled\n"
        "try:\n"
        "    execute(['scrapy', 'fleet', 'up', '1', '--port', '0'])\n"
        "finally:\n"
        "    print([child.poll() is not None for child in started])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("[True]\n")


def test_the_fleet_of_scrapy_cfg(project: Path) -> None:
    with fleet_up(project, "1", "--port", "0", "--username", "user-x", "--password-env", "PW", PW=SECRET) as up:
        (project / "scrapy.cfg").write_text(
            "[settings]\ndefault = tiny.settings\n"
            f"[deploy:scrapyd1]\nurl = {up.urls[0]}/\nproject = estate\nusername = user-x\npassword = $PW\n"
            "[deploy:scrapyd2]\nurl = http://127.0.0.1:1/\nproject = estate\n"
        )
        refused = scrapy(project, "monitor", "--once", "scrapyd1")
        assert refused.returncode == 1
        assert "scrapyd1 refused: wrong or missing credentials" in refused.stdout
        deployed = scrapy(project, "fleet", "deploy", "--version", "1.0", PW=SECRET)
        assert deployed.returncode == 1
        one, two = deployed.stdout.splitlines()
        assert one == "scrapyd1 estate 1.0: 2 spiders"
        assert two.startswith("scrapyd2 failed: connection refused")
        shown = scrapy(project, "monitor", "--once", "scrapyd*", PW=SECRET)
        assert shown.returncode == 1
        one, two = sorted(shown.stdout.splitlines())
        assert one.startswith("scrapyd1 running: 0, finished: 0, pending: 0 (")
        assert two.startswith("scrapyd2 unreachable: connection refused at http://127.0.0.1:1: ")
        listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout
        said = "".join(result.stdout + result.stderr for result in (refused, deployed, shown))
        assert SECRET not in listed + said
        environments = b"".join(environments_of(up.groups()))
        assert b"SCRAPYD_HTTP_PORT" in environments
        assert SECRET.encode() not in environments
        assert SECRET not in (project / ".scrapy/fleet/scrapyd1/scrapyd.log").read_text()


def test_a_password_is_made_and_found_by_the_commands_of_its_user_alone(project: Path, tmp_path: Path) -> None:
    with fleet_up(project, "2", "--port", "0", "--warm", "--poll-interval", "0.1") as up:
        hosts = [url.removeprefix("http://") for url in up.urls]
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{up.urls[0]}/daemonstatus.json", timeout=DEADLINE_SECONDS)
        shown = scrapy(tmp_path, "fleet", "password", HOME=str(project))
        assert shown.stdout.splitlines() == [
            f"{name} {url}/ username: scrapy password: {up.password}"
            for name, url in sorted(
                zip(("scrapyd1", "scrapyd2"), up.urls, strict=True), key=lambda one: int(one[1][17:])
            )
        ]
        one = scrapy(tmp_path, "fleet", "password", "scrapyd2", hosts[1], HOME=str(project))
        assert one.stdout.count(f"scrapyd2 {up.urls[1]}/") == 2
        assert scrapy(project, "fleet", "deploy", hosts[0]).returncode == 0
        assert scrapy(tmp_path, "monitor", "--once", *hosts, HOME=str(project)).returncode == 0
        assert scrapy(tmp_path, "monitor", "--once", f"localhost:{hosts[0][10:]}", HOME=str(project)).returncode == 0
        doctor = scrapy(project, "fleet", "doctor", hosts[0])
        assert f"{hosts[0]}  ok    credentials: accepted" in doctor.stdout, doctor.stdout

        up.call("schedule.json", project="tiny", spider="waiting", jobid="w1")
        up.wait_until_running("w1")
        listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout
        environments = b"".join(environments_of(up.groups()))
        assert b"SCRAPYD_HTTP_PORT" in environments
        assert up.password not in listed + shown.stderr + one.stderr
        assert up.password.encode() not in environments
        secret = [path for path in project.rglob("*") if path.is_file() and up.password in path.read_text("latin-1")]
        assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
        nodes = project / ".local/state/scrapy_distributed/nodes"
        assert {path.parent for path in secret} == {nodes, project / ".scrapy/fleet", *(
            project / ".scrapy/fleet" / name for name in ("scrapyd1", "scrapyd2")
        )}  # fmt: skip
        assert nodes.stat().st_mode & 0o777 == 0o700
        other = scrapy(project, "monitor", "--once", hosts[0], HOME=str(tmp_path))
        assert "wrong or missing credentials" in other.stdout
        before = up.password
    assert list(nodes.iterdir()) == []
    gone = scrapy(project, "fleet", "password")
    assert (gone.returncode, gone.stderr) == (1, "no node of a scrapy fleet up of this user that has made a password\n")
    with fleet_up(project, "1", "--port", "0") as up:
        assert up.call("daemonstatus.json")["status"] == "ok"
        assert up.password == before  # so a crawl that waits goes on


def environments_of(groups: list[int]) -> list[bytes]:
    """What the processes of *groups* have begun with."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(folder.name)) in groups:
                found.append((folder / "environ").read_bytes())
    return found


def test_nobody_is_asked_for_a_password_where_none_is_wanted(project: Path) -> None:
    """Also where a configuration of the user has one."""
    (project / ".scrapyd.conf").write_text("[scrapyd]\nusername = other\npassword = word\n")
    with fleet_up(project, "1", "--port", "0", "--no-password") as up:
        with urlopen(f"{up.urls[0]}/daemonstatus.json", timeout=DEADLINE_SECONDS) as response:
            assert json.load(response)["status"] == "ok"
        assert not (project / ".local").exists()


def test_a_home_that_can_not_be_written(project: Path) -> None:
    (project / "file").write_text("")
    result = scrapy(project, "fleet", "up", "1", "--port", "0", XDG_STATE_HOME=str(project / "file"))
    assert result.returncode == 2
    assert "the folder for the passwords of the nodes can't be used: " in result.stderr
    assert "set XDG_STATE_HOME to one that can be written" in result.stderr


def test_monitor_polls_until_ctrl_c(project: Path, tmp_path: Path) -> None:
    with start(tmp_path / "nodes") as node:
        monitor = subprocess.Popen(
            [sys.executable, "-m", "scrapy", "monitor", "--interval", "0.1", f"127.0.0.1:{node.port}"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert monitor.stdout
        for _ in range(3):
            line = monitor.stdout.readline()
            assert re.sub(r"\d\d", "00", line.rpartition(" (")[2]) == "00:00:00)\n"
            assert line.rpartition(" (")[0] == f"127.0.0.1:{node.port} running: 0, finished: 0, pending: 0"
        monitor.send_signal(signal.SIGINT)
        _, errors = monitor.communicate(timeout=DEADLINE_SECONDS)
        assert (monitor.returncode, errors) == (0, "")


def test_a_node_that_dies_is_reported(project: Path) -> None:
    with fleet_up(project, "2", "--port", "0") as up:
        for pid in up.groups():
            os.kill(pid, signal.SIGKILL)
        _, errors = up.process.communicate(timeout=DEADLINE_SECONDS)
        assert up.process.returncode == 1
        logs = [project / ".scrapy" / "fleet" / name / "scrapyd.log" for name in ("scrapyd1", "scrapyd2")]
        assert errors.splitlines() == [f"{log.parent.name} has ended (status -9), see {log}" for log in logs]


def test_a_port_that_is_taken(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = scrapy(project, "fleet", "up", "1", "--port", str(port))
    assert result.returncode == 2
    assert f"port {port} can't be used" in result.stderr
    assert "choose another --port" in result.stderr


def test_a_node_that_can_not_start_ends_the_others(project: Path) -> None:
    broken = project / ".scrapy/fleet/scrapyd2/eggs"
    broken.parent.mkdir(parents=True)
    broken.write_text("a file where a folder has to be")
    result = scrapy(project, "fleet", "up", "2", "--port", "0")
    assert result.returncode == 1
    assert "scrapyd2: Scrapyd did not start: see " in result.stderr
    assert "NotADirectoryError" in result.stderr
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    pids = [line.split()[0] for line in listed.splitlines() if "scrapyd --pidfile=" in line]
    assert not [pid for pid in pids if os.path.realpath(f"/proc/{pid}/cwd").startswith(str(project))]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fleet"], "found nothing, expected: scrapy fleet up N"),
        (["fleet", "down"], "found 'down', expected"),
        (["fleet", "up"], "expected a number of nodes: scrapy fleet up 3"),
        (["fleet", "up", "0"], "expected a number of nodes"),
        (["fleet", "up", "1", "--port", "x"], "invalid int value: 'x'"),
        (["fleet", "up", "1", "--username", "u"], "a username and a password belong together"),
        (["fleet", "up", "1", "--username", "u", "--password-env", "HOME", "--no-password"], "expected one of them"),
        (["fleet", "up", "1", "--bogus"], "unknown option --bogus"),
        (["fleet", "deploy"], "no nodes: set DISTRIBUTED_TARGET_HOSTS"),
        (["monitor"], "no nodes: set DISTRIBUTED_TARGET_HOSTS"),
        (["monitor", "nodes*"], "'nodes*' matches none of the targets"),
        (["monitor", "--interval", "0"], "expected at least 0.1"),
    ],
)
def test_wrong_command_lines(project: Path, args: list[str], words: str) -> None:
    result = scrapy(project, *args)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_deploy_outside_a_project(tmp_path: Path) -> None:
    result = scrapy(tmp_path, "fleet", "deploy", "127.0.0.1:1")
    assert result.returncode == 2
    assert "no Scrapy project here" in result.stderr


def test_deploy_by_setup_py_leaves_nothing(project: Path, tmp_path: Path) -> None:
    (project / "setup.py").write_text(
        "from setuptools import find_packages, setup\n"
        "setup(name='tiny', version='3.1', packages=find_packages(),\n"
        "      entry_points={'scrapy': ['settings = tiny.settings']})\n"
    )
    before = sorted(project.rglob("*"))
    with start(tmp_path / "nodes") as node:
        place = f"127.0.0.1:{node.port}"
        result = scrapy(project, "fleet", "deploy", place, "--project", "other", "--version", "2")
        assert (result.returncode, result.stdout) == (0, f"{place} other 2: 2 spiders\n"), result.stderr
        result = scrapy(project, "fleet", "deploy", place, "--project", "other", "--version", "1f2a")
    assert result.stdout == f"{place} other 1f2a: 2 spiders\n"
    assert result.stderr.startswith("version 1f2a is there, and a crawl uses 2, which is newer by its name: ")
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("", "expected the settings of the project in its call of setup(): entry_points={'scrapy': ['settings = tiny."),
        ("entry_points={'scrapy': ['settings = tiny.others']}", "setup.py says that the settings are tiny.others, and"),
    ],
)
def test_the_settings_that_setup_py_names(project: Path, says: str, words: str) -> None:
    """Scrapyd asks an egg for them, and would keep one that does not say."""
    (project / "setup.py").write_text(
        "from setuptools import find_packages, setup\n"
        f"setup(name='tiny', version='3.1', packages=find_packages(), {says})\n"
    )
    result = scrapy(project, "fleet", "deploy", "127.0.0.1:1")
    assert words in result.stderr


def test_a_src_layout(project: Path, tmp_path: Path) -> None:
    (project / "src").mkdir()
    (project / "tiny").rename(project / "src" / "tiny")
    setup = "from setuptools import find_packages, setup\nsetup(name='tiny', entry_points={'scrapy': ['settings = "
    paths = {"PYTHONPATH": str(project / "src")}
    (project / "setup.py").write_text(f"{setup}tiny.settings']}}, packages=find_packages())\n")
    result = scrapy(project, "fleet", "deploy", "127.0.0.1:1", **paths)
    assert result.returncode == 2
    assert (
        "setup.py packs no 'tiny' (of 'tiny.settings' in scrapy.cfg): it is in src/: move scrapy.cfg" in result.stderr
    )
    advice = result.stderr[result.stderr.index("package_dir=") :].strip()
    (project / "setup.py").write_text(f"{setup}tiny.settings']}}, {advice})\n")
    with start(tmp_path / "nodes") as node:
        result = scrapy(project, "fleet", "deploy", f"127.0.0.1:{node.port}", **paths)
    assert result.stdout.endswith(": 2 spiders\n"), result.stderr


def test_what_the_code_needs_and_a_node_will_not_find(project: Path, tmp_path: Path) -> None:
    (project / "helpers.py").write_text("")
    (project / "tiny" / "data.json").write_text("{}")
    settings = project / "tiny" / "settings.py"
    settings.write_text(f"import helpers\n{settings.read_text()}")
    with start(tmp_path / "nodes") as node:
        place = f"127.0.0.1:{node.port}"
        result = scrapy(project, "fleet", "deploy", place)
        assert result.returncode == 1
        assert "found an import of helpers, which lies beside scrapy.cfg and is not in the egg" in result.stderr
        said = "No module named 'helpers': install on this node what the project imports and does not contain: version"
        assert said in result.stdout
        settings.write_text(
            'import os\nBOT_NAME = "tiny"\nSPIDER_MODULES = ["tiny.spiders"]\n'
            'open(os.path.join(os.path.dirname(__file__), "data.json"))\n'
        )
        result = scrapy(project, "fleet", "deploy", place)
        assert result.returncode == 1
        assert "read it by its package: pkgutil.get_data('tiny', 'data/x.json')" in result.stderr
        settings.write_text(
            'import pkgutil\nBOT_NAME = "tiny"\nSPIDER_MODULES = ["tiny.spiders"]\n'
            'pkgutil.get_data("tiny", "data.json")\n'
        )
        result = scrapy(project, "fleet", "deploy", place)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_project_that_can_not_be_imported_on_the_node(project: Path, tmp_path: Path) -> None:
    (project / "tiny" / "spiders.py").write_text("import no_such_module_anywhere\n")
    with start(tmp_path / "nodes") as node:
        result = scrapy(project, "fleet", "deploy", f"127.0.0.1:{node.port}")
    assert result.returncode == 1
    assert "ModuleNotFoundError: No module named 'no_such_module_anywhere'" in result.stdout
    assert "install on this node what the project imports" in result.stdout


def test_a_version_that_can_not_be_imported_does_not_stay(project: Path, tmp_path: Path) -> None:
    """Scrapyd stores an egg before it imports it."""
    spiders = project / "tiny" / "spiders.py"
    good = spiders.read_text()
    with start(tmp_path / "nodes") as node:
        place = f"127.0.0.1:{node.port}"

        def deploy(text: str, version: str) -> str:
            spiders.write_text(text)
            result = scrapy(project, "fleet", "deploy", place, "--version", version)
            assert result.returncode == (" spiders" not in result.stdout), result.stderr
            return result.stdout + result.stderr

        def versions() -> object:
            return call(f"{node.url}/listversions.json?project=tiny")["versions"]

        assert "2 spiders" in deploy(good, "1")
        said = deploy("import no_such_module_anywhere\n", "2")
        assert "'no_such_module_anywhere'" in said
        assert said.endswith("version 2 was taken back\n")
        assert versions() == ["1"]
        said = deploy("import no_such_module_anywhere\n", "1")
        assert "version 1 was there before: it stays, with this egg" in said
        assert versions() == ["1"]
        assert "2 spiders" in deploy(good, "1")
        assert versions() == ["1"]


def test_a_spider_that_no_node_can_run_is_not_sent(project: Path) -> None:
    """Whoever schedules it would take a slot from its node for ever."""
    with (project / "tiny" / "spiders.py").open("a") as spiders:
        spiders.write("\n\nclass Path(scrapy.Spider):\n    name = 'shop.com/eu'\n")
    result = scrapy(project, "fleet", "deploy", "127.0.0.1:1")
    assert result.returncode == 2
    assert "nothing was sent: spider 'shop.com/eu': found what is a path" in result.stderr


def test_a_broken_setup_py(project: Path) -> None:
    (project / "setup.py").write_text("raise SystemExit('never mind')\n")
    result = scrapy(project, "fleet", "deploy", "127.0.0.1:1")
    assert result.returncode == 2
    assert "setup.py bdist_egg failed" in result.stderr
    assert "never mind" in result.stderr


def test_other_commands_do_not_import_what_ours_need(project: Path) -> None:
    ours = "".join(f", scrapy_distributed.commands.{name}" for name in ("batches", "fleet", "monitor", "worker"))
    code = (
        f"import sys{ours};"
        "print([name for name in ('treq', 'twisted.internet.reactor', 'twisted.web.client') if name in sys.modules])"
    )
    # Scrapy's own command base may import some of twisted.web, so compare with it.
    base = code.replace(ours, ", scrapy.commands")
    outputs = [
        subprocess.run(
            [sys.executable, "-c", one], capture_output=True, text=True, check=True, env=environment(project)
        ).stdout
        for one in (code, base)
    ]
    assert outputs[0] == outputs[1]
    assert "treq" not in outputs[0]


def test_the_help(project: Path) -> None:
    shutil.rmtree(project / "tiny" / "__pycache__", ignore_errors=True)
    for command, words in (("fleet", "--max-proc"), ("monitor", "--once")):
        result = scrapy(project, command, "-h")
        assert result.returncode == 0
        assert words in result.stdout
