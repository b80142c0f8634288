"""What an end-to-end test needs: the site, a project deployed to nodes, and crawls as a user starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import urlopen

from forked import SCRAPY, Forked
from scrapyd_child import ScrapydChild

from scrapy_distributed.ledger.reader import LedgerReader

T = TypeVar("T")

FAKES = Path(__file__).parent
TESTS = FAKES.parent
EXAMPLE = TESTS.parent / "example_project"
VERSION = "r1"
DEADLINE_SECONDS = 90


def call(url: str, **form: str) -> Any:
    """The JSON that *url* answers, to a POST if there is a *form*."""
    with urlopen(url, data=urlencode(form).encode() if form else None, timeout=30) as response:
        return json.load(response)


def wait_for(check: Callable[[], T], seconds: float = 30) -> T:
    """What *check* returns as soon as that is true; fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"still {result!r} after {seconds} s"
        time.sleep(0.05)
    return result


class SiteChild:
    """The running example site."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def stand_still(self) -> None:
        """It takes connections, and answers nothing until it goes on."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def property_urls(self, numbers: Sequence[int]) -> list[str]:
        return [f"{self.url}/property_{number:06d}.html" for number in numbers]

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = call(f"{self.url}/stats.json")
        return stats


@contextmanager
def site(properties: int, latency: float = 0.0) -> Iterator[SiteChild]:
    command = [sys.executable, str(EXAMPLE / "site" / "site_server.py"), "--port", "0"]
    command += ["--properties", str(properties), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield SiteChild(process.stdout.readline().rpartition(" ")[2].strip(), process.pid)
        finally:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # one that stands still would not hear of its end


class Crawl:
    """A command in a project's folder, its output, and what a crawl has left in *folder*: ledger and items."""

    def __init__(
        self,
        project: Path,
        folder: Path,
        args: Sequence[str],
        environment: Mapping[str, str],
        program: Sequence[str] = SCRAPY,
    ) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.sqlite"
        self._log = folder / f"{len(list(folder.glob('*.log')))}.log"
        # A test run's own configuration must not reach what is tested.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SCRAPY", "SCRAPYD"))}
        whole = {**kept, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        self.process: subprocess.Popen[bytes] | Forked
        with self._log.open("wb") as output:
            if "PYTHONPATH" not in environment and (program == SCRAPY or TESTS in Path(program[0]).parents):
                self.process = Forked(
                    args, program=program, folder=project, environment=whole, output=output.fileno()
                )  # fmt: skip
            else:
                self.process = subprocess.Popen(
                    [sys.executable, *program, *args],
                    cwd=project,
                    env=whole,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Crawl:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()  # it would take the time of the tests that follow
            raise AssertionError(f"still running after {seconds} s:\n{self.log[-5000:]}") from None
        return self

    async def has_ended(self) -> bool:
        """For ``until``: whether the process is over, asked without holding up the reactor."""
        return self.process.poll() is not None

    def end(self) -> None:
        """kill -9, if it still runs."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet, and has started nothing; or has ended
                with suppress(ProcessLookupError):
                    self.process.kill()
            self.process.wait()

    def stat(self, name: str) -> int | None:
        """A number in the stats that Scrapy has logged."""
        found = re.search(rf"'{re.escape(name)}': (\d+)", self.log)
        return int(found[1]) if found else None

    def run(self) -> dict[str, Any]:
        """The last run of the ledger, as ``scrapy batches list --json`` has it."""
        reader = LedgerReader(self.ledger)
        try:
            run = reader.runs()[-1]
            return vars(run) | {
                "balance": reader.balance(run.id),
                "batches": [vars(batch) for batch in reader.batches(run.id)],
                "feeds": reader.feeds(run.id),
                "outcomes": [vars(outcome) for outcome in reader.outcomes(run.id)],
            }
        finally:
            reader.close()

    def balance(self) -> dict[str, int]:
        """The balance of a run that has been walked and settled, states without requests left out."""
        run = self.run()
        assert run["walked"], self.log
        assert run["balance"].settled, f"{run['balance']}\n{self.log[-5000:]}"
        return {state: count for state, count in run["balance"].as_dict().items() if count}

    def items(self) -> list[dict[str, Any]]:
        """The items in the feeds of accepted attempts."""
        paths = [Path(unquote(urlsplit(feed).path)) for feed in self.run()["feeds"]]
        return [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]

    def item_urls(self) -> list[str]:
        return sorted(item["url"] for item in self.items())


class Project:
    """The folder of a project: the package ``trial`` beside the example's, with a target for each of *nodes*. *name*:
    what it is called there."""

    def __init__(
        self, folder: Path, nodes: Mapping[str, str], settings: str = "trial.settings", name: str = "trial"
    ) -> None:
        self.folder = folder
        self._crawls: list[Crawl] = []
        shutil.copytree(FAKES / "trial", folder / "trial", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(EXAMPLE / "properties", folder / "properties", ignore=shutil.ignore_patterns("__pycache__"))
        targets = "".join(f"[deploy:{node}]\n{lines}\nproject = {name}\n" for node, lines in nodes.items())
        (folder / "scrapy.cfg").write_text(f"[settings]\ndefault = {settings}\n{targets}")

    def scrapy(self, *args: str, folder: Path, program: Sequence[str] = SCRAPY, **environment: str) -> Crawl:
        """A Scrapy command; *program* is what Python runs it with."""
        crawl = Crawl(self.folder, folder, args, environment, program)
        self._crawls.append(crawl)
        return crawl

    def crawl(
        self,
        spider: str,
        *,
        folder: Path,
        args: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = SCRAPY,
        output: Sequence[str] = (),
    ) -> Crawl:
        """A coordinator; its ledger, and the feeds of its workers, are in *folder*. *output*: options for its own."""
        feed = f"file://{folder}/items/%(batch)s_%(name)s_%(time)s.jl"
        given = {
            "DISTRIBUTED_LEDGER": folder / "ledger.sqlite",
            "DISTRIBUTED_TARGET_FEED_URL": feed,
            **(settings or {}),
        }
        options = [option for name, value in (args or {}).items() for option in ("-a", f"{name}={value}")]
        options += [option for name, value in given.items() for option in ("-s", f"{name}={value}")]
        return self.scrapy("crawl", spider, *options, *output, folder=folder, program=program, **(environment or {}))

    def deploy(self, *names: str, folder: Path, **environment: str) -> None:
        deploy = self.scrapy("fleet", "deploy", *names, "--version", VERSION, folder=folder, **environment).wait()
        assert deploy.process.returncode == 0, deploy.log

    def merge(self, crawl: Crawl, *folders: Path) -> Path:
        """The feeds that count of what *crawl* has left, found in *folders* or where they were told to be, as one
        file."""
        output = crawl.folder / "merged.jl"
        command = ("batches", "merge", *map(str, folders), "-O", str(output), "--ledger", str(crawl.ledger))
        merge = self.scrapy(*command, folder=crawl.folder).wait()
        assert merge.process.returncode == 0, f"scrapy batches merge says no: {merge.log}"
        return output

    def check(self, crawl: Crawl) -> int:
        """The exit code of ``scrapy batches check`` for what *crawl* has left."""
        command = self.scrapy("batches", "check", "--ledger", str(crawl.ledger), folder=crawl.folder)
        return command.wait().process.returncode

    def account(self, crawl: Crawl) -> dict[str, Any]:
        """What ``scrapy batches check`` says of the run that *crawl* has left, which must be good."""
        command = self.scrapy("batches", "check", "--json", "--ledger", str(crawl.ledger), folder=crawl.folder).wait()
        assert command.process.returncode == 0, f"scrapy batches check says no: {command.log}"
        (run,) = json.loads(command.log)["runs"]
        return dict(run)

    def end(self) -> None:
        for crawl in self._crawls:
            crawl.end()


def with_urls(nodes: Sequence[ScrapydChild]) -> dict[str, str]:
    return {node.name: f"url = {node.url}" for node in nodes}
