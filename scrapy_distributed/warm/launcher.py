"""A launcher for Scrapyd that starts jobs at once, from a warm process. One line in ``scrapyd.conf``:

launcher = scrapy_distributed.warm.launcher.WarmLauncher
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from scrapyd.interfaces import IEnvironment, IPoller, ISpiderScheduler
from scrapyd.launcher import Launcher, ScrapyProcessProtocol, get_crawl_args
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer  # type: ignore[import-untyped]

from scrapy_distributed.agent.job_process import payload, without_secrets
from scrapy_distributed.agent.warm_process import WarmProcess, WarmProcessError

log = Logger()

LONGEST_ARGUMENT = 200
"""Characters of an argument that Scrapyd logs and keeps of a finished job."""
RESTART_SECONDS = (1.0, 60.0)
"""The first pause before a warm process that has ended is replaced, and the longest; each is twice the one before."""
START_TRIES = 60
"""How often a job is tried to be started where the machine can't, with a pause of so many seconds:"""
TRY_SECONDS = 1.0
_RUNNER = "scrapyd.runner"
_MODULES = ("pkg_resources", "scrapyd.eggstorage")  # that this imports


class WarmLauncher(Launcher):  # type: ignore[misc]
    """Scrapyd's launcher, with three differences: a job starts as soon as it is queued and a slot is free; its process
    is forked from one that has imported Scrapy; its settings and arguments are not in its command line.

    Where the warm process can't be used, a job starts cold, as with Scrapyd's own launcher."""

    def __init__(self, config: Any, app: Any) -> None:
        super().__init__(config, app)
        self._warm: WarmProcess | None = None
        self._held: list[int] = []
        self._pause = RESTART_SECONDS[0]
        self._polling = False
        self._stopped = False
        app.setComponent(ISpiderScheduler, PromptScheduler(app.getComponent(ISpiderScheduler), self._poll_soon))

    def startService(self) -> None:  # noqa: N802
        if self.runner != _RUNNER:
            log.warn("Every job starts cold: found runner={runner}, expected {ours}", runner=self.runner, ours=_RUNNER)
        elif not hasattr(os, "fork"):
            log.warn("Every job starts cold: this system has no fork")
        else:
            self._start_warm()
        super().startService()

    def stopService(self) -> Any:  # noqa: N802
        self._stopped = True
        return super().stopService()

    # The warm process

    def _start_warm(self) -> None:
        if self._stopped:
            return
        self._warm = None
        try:
            self._warm = WarmProcess(reactor, listener=self, modules=_MODULES)
            self._warm.start()
        except OSError as error:  # no memory, or no descriptor left
            log.error("The warm process can't be started: {error}", error=error)
            self.warm_ended(self._warm)

    def warm_ready(self) -> None:
        assert self._warm is not None
        log.info("The warm process is ready: pid={pid}", pid=self._warm.pid)
        self._pause = RESTART_SECONDS[0]
        self._open_slots()

    def warm_ended(self, warm: WarmProcess | None) -> None:
        if warm is not self._warm or self._stopped:
            return
        log.error("There is no warm process; the next one starts in {seconds} s", seconds=self._pause)
        self._warm = None
        loop: Any = reactor
        loop.callLater(self._pause, self._start_warm)
        self._pause = min(2 * self._pause, RESTART_SECONDS[1])
        self._open_slots()

    def _usable_warm(self) -> WarmProcess | None:
        """The warm process, if it can fork a job. A mixture of two versions of a package must not run."""
        warm = self._warm
        if warm is not None and warm.ready and warm.stale:
            log.warn("Packages were installed or removed: the warm process is replaced")
            warm.retire()
            self._start_warm()
        return warm if warm is not None and warm.ready else None

    # Slots

    def _get_message(self, slot: int) -> None:
        if self._warm is not None and not self._warm.ready:
            self._held.append(slot)  # its job waits in Scrapyd's queue, where it can be seen and cancelled
            return
        super()._get_message(slot)
        self._poll_soon()

    def _open_slots(self) -> None:
        held, self._held = self._held, []
        for slot in held:
            self._get_message(slot)

    def _poll_soon(self) -> None:
        """Look at the queues in the next turn of the reactor, instead of at the next ``poll_interval``."""
        if not self._polling:
            self._polling = True
            loop: Any = reactor
            loop.callLater(0, self._poll)

    def _poll(self) -> None:
        self._polling = False
        done = maybeDeferred(self.app.getComponent(IPoller).poll)
        done.addErrback(lambda failure: log.failure("The queues could not be read", failure))

    def _spawn_process(self, message: dict[str, Any], slot: int, tries: int = START_TRIES) -> None:
        """Scrapyd's own, except that no error costs the slot, and one of the machine not the job: a full disk would
        empty the queue."""
        try:
            self.processes[slot] = self._job(message, slot)
        except Exception as error:
            if isinstance(error, OSError) and tries > 1:
                log.error("Job {job!r} can't be started now: {error}", job=message.get("_job"), error=error)
                loop: Any = reactor
                loop.callLater(TRY_SECONDS, self._spawn_process, message, slot, tries - 1)
                return
            log.failure("Job {job!r} could not be started, and is lost", job=message.get("_job"))
            self._get_message(slot)

    def _job(self, message: dict[str, Any], slot: int) -> ScrapyProcessProtocol:
        environment = self.app.getComponent(IEnvironment)
        message.setdefault("settings", {})
        message["settings"].update(environment.get_settings(message))
        env = without_secrets(environment.get_environment(message, slot))
        arguments = ["crawl", *get_crawl_args(message)]
        shown = [sys.executable, "-m", self.runner, *map(_shown, arguments)]
        process = ScrapyProcessProtocol(message["_project"], message["_spider"], message["_job"], env, shown)
        self._start(process, payload(self.runner, arguments, env))
        process.deferred.addBoth(self._process_finished, slot)
        return process

    def _start(self, process: ScrapyProcessProtocol, job: bytes) -> None:
        warm = self._usable_warm()
        if warm is not None:
            with suppress(WarmProcessError):
                warm.fork(process, job)
                return
        if self.runner == _RUNNER:
            log.warn("Cold start of job {job!r}: the warm process can't be used", job=process.job)
        loop: Any = reactor
        command = [sys.executable, "-m", "scrapy_distributed.agent.job_process"]
        loop.spawnProcess(process, sys.executable, command, env=process.env)
        process.transport.write(job)
        process.transport.closeStdin()


@implementer(ISpiderScheduler)
class PromptScheduler:
    """*scheduler*, with a call of *scheduled* after each job that it has queued."""

    def __init__(self, scheduler: Any, scheduled: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._scheduled = scheduled

    def schedule(self, project: str, spider_name: str, priority: float = 0.0, **spider_args: Any) -> None:
        self._scheduler.schedule(project, spider_name, priority=priority, **spider_args)
        self._scheduled()

    def list_projects(self) -> list[str]:
        projects: list[str] = self._scheduler.list_projects()
        return projects

    def update_projects(self) -> None:
        self._scheduler.update_projects()


def _shown(argument: str) -> str:
    if len(argument) <= LONGEST_ARGUMENT:
        return argument
    return f"{argument[:LONGEST_ARGUMENT]}... ({len(argument)} characters)"
