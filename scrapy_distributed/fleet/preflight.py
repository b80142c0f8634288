"""What every node is asked before the first batch, and by ``scrapy fleet doctor``: can it be used for this run?

One list of checks serves both. ``preflight`` turns what they find into the version of the run and the nodes to leave
out; the doctor adds a check of its own, and shows every line.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.task import LoopingCall, deferLater

from scrapy_distributed.errors import (
    ConfigError,
    FleetUnusableError,
    NodeError,
    NodeRefusedError,
    NodeUnauthorizedError,
)
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.roll_call import AGAIN_SECONDS, RollCall, may_pass
from scrapy_distributed.fleet.versions import choose_version, order_of
from scrapy_distributed.together import together
from scrapy_distributed.words import listed, shortened

logger = logging.getLogger(__name__)

TELL_SECONDS = 2.0  # before it is said that no node can be used yet


#: What is said of a node that asks nobody for a password.
OPEN = (
    "anybody gets in, and who can post to a Scrapyd can run code there; set username and password in its scrapyd.conf"
    " and in scrapy.cfg here, see Security in the README"
)


class Verdict(enum.Enum):
    """What a check has found; the value is what the doctor prints."""

    OK = "ok"
    WARN = "warn"  # the node can be used, and is not as it should be
    RISK = "risk"  # the node is as the crawl needs it, and others can do harm with it
    FAIL = "FAIL"  # the node can't be used
    SKIPPED = "-"  # not asked, as something that it needs has failed


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What *check* has found at *node*, in *words*, with what mends it. *error* is a ``ConfigError`` where the fault is
    not this node's alone."""

    node: str
    check: str
    verdict: Verdict
    words: str
    error: NodeError | ConfigError | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question. *ask* raises ``NodeError`` or ``ConfigError`` for a failure; *trouble* says in two words why what
    needs this check is not asked then."""

    name: str
    trouble: str
    needs: tuple[str, ...] = ()
    ask: Callable[[Node, Survey], Awaitable[tuple[Verdict, str]]]


@dataclass(kw_only=True)
class Survey:
    """What is looked for at the nodes, and what they have said so far.

    *version* is the one asked for, '' for the newest that every node has. *feed*: the jobs are told where to write
    their items. *chosen* is the version that the run uses, '' if the project has none; *versions* are those of each
    node that has the project."""

    project: str
    spider: str
    version: str = ""
    feed: bool = True
    chosen: str = ""
    versions: dict[str, list[str]] = field(default_factory=dict)
    _found: dict[str, dict[str, Finding]] = field(default_factory=dict)
    _given_up: dict[str, NodeError] = field(default_factory=dict)

    async def ask(self, nodes: Sequence[Node], checks: Sequence[Check]) -> None:
        """Ask all *nodes* at once, check by check: what one has said may decide what the next are asked."""
        for node in nodes:
            self._found.setdefault(node.name, {})
        for check in checks:
            await together(self._ask(node, check) for node in nodes)

    def error_of(self, node: Node) -> NodeError | ConfigError | None:
        """Why it can't be used, as far as it was asked."""
        found = self._found.get(node.name, {})
        return next((finding.error for finding in found.values() if finding.error is not None), None)

    def is_well(self, node: Node) -> bool:
        """Whether it has answered, and nothing is wrong with it so far."""
        return bool(self._found.get(node.name)) and self.error_of(node) is None

    def forget(self, node: Node) -> None:
        """What it has said: it is asked again."""
        self._found[node.name] = {}

    def give_up(self, node: Node, error: NodeError) -> None:
        """From here on it fails, unasked, with *error*; so does what it is asked just now, if that is cancelled. With
        what it has failed before stays."""
        self._given_up[node.name] = error

    def verdict(self, node: str, check: str) -> Verdict:
        """Of a check that was made."""
        return self._found[node][check].verdict

    @property
    def findings(self) -> list[Finding]:
        """By node, in the order in which they were asked."""
        return [finding for of_node in self._found.values() for finding in of_node.values()]

    async def _ask(self, node: Node, check: Check) -> None:
        found = self._found[node.name]
        error: NodeError | ConfigError | None = None
        obstacles = [found[need] for need in check.needs if found[need].verdict in (Verdict.FAIL, Verdict.SKIPPED)]
        if obstacles:
            verdict, words = Verdict.SKIPPED, obstacles[0].words
            if obstacles[0].verdict is Verdict.FAIL:
                words = f"not checked ({_TROUBLES[obstacles[0].check]})"
        else:
            try:
                if node.name in self._given_up:
                    raise self._given_up[node.name]
                verdict, words = await check.ask(node, self)
            except (NodeError, ConfigError) as caught:
                error = self._given_up.get(node.name, caught)
                verdict, words = Verdict.FAIL, str(error).removeprefix(f"{node.name}: ")
        found[check.name] = Finding(node=node.name, check=check.name, verdict=verdict, words=words, error=error)


async def preflight(
    nodes: Sequence[Node],
    *,
    project: str,
    spider: str,
    version: str,
    feed: bool = True,
    clock: Any,
    wait: float = 0.0,
    others: bool = False,
) -> tuple[str, dict[str, NodeError]]:
    """The egg version that the run uses ('' if the project has none), and why which nodes can't be used now.

    *version* is the one asked for, '' for the newest that every usable node has; *feed* tells whether jobs get feeds.
    Where no node can be used, those whose fault may pass are asked again for *wait* seconds. One that is late while
    another can be used is among those that can't. *others*: there is more than these nodes, so none is waited for.

    Raises ``ConfigError`` if nothing can be used, or if no version is on all of them; ``FleetUnusableError`` if that
    may be another time.
    """
    wait = 0.0 if others else wait
    until = clock.seconds() + wait
    told = _Told(nodes, wait=wait, clock=clock)
    try:
        while True:
            told.survey = survey = Survey(project=project, spider=spider, version=version, feed=feed)
            await _survey_all(RollCall(survey, nodes, clock=clock, until=until, errors=told.errors))
            faults = _faults(survey, nodes)
            if len(faults) < len(nodes) or others:
                told.end(survey)
                return survey.chosen, faults
            if not any(map(may_pass, faults.values())):
                raise ConfigError(_none_of(nodes, faults))
            if clock.seconds() >= until:
                raise FleetUnusableError(_none_of(nodes, faults))
            told.errors.update(faults)
            await deferLater(clock, AGAIN_SECONDS)
    finally:
        told.cancel()


async def _survey_all(call: RollCall) -> None:
    """All ``CHECKS``. The version is chosen of those that the nodes have said by then."""
    await call.ask_again(CHECKS[:_VERSION])
    await call.survey.ask(call.nodes, [CHECKS[_VERSION]])
    await call.ask(CHECKS[_VERSION + 1 :])


def _faults(survey: Survey, nodes: Sequence[Node]) -> dict[str, NodeError]:
    """By node. Raises ``ConfigError`` for what is not a node's fault."""
    faults: dict[str, NodeError] = {}
    for finding in survey.findings:
        if isinstance(finding.error, ConfigError):
            raise finding.error
        if finding.error is not None:
            faults.setdefault(finding.node, finding.error)
    return faults


def _none_of(nodes: Sequence[Node], faults: Mapping[str, NodeError]) -> str:
    reasons = "\n  ".join(str(error) for error in faults.values())
    return f"DISTRIBUTED_TARGET_HOSTS: none of the {len(nodes)} nodes can be used:\n  {reasons}"


class _Told:
    """Says once that no node can be used yet, and in the end that one can, and what is not as it should be."""

    def __init__(self, nodes: Sequence[Node], *, wait: float, clock: Any) -> None:
        self.nodes = nodes
        self.wait = wait
        self.survey: Survey | None = None
        self.errors: dict[str, Exception] = {}
        self._told = False
        self._ticker = LoopingCall(self._tell)
        self._ticker.clock = clock
        if wait:
            self._ticker.start(TELL_SECONDS, now=False)

    def end(self, survey: Survey) -> None:
        if self._told:
            logger.info("A node can be used: the crawl begins")
        for finding in survey.findings:
            if finding.verdict is Verdict.WARN:
                logger.warning("%s: %s: %s", finding.node, finding.check, finding.words)
        _log_risks([one for one in survey.findings if one.verdict is Verdict.RISK], len(self.nodes))

    def cancel(self) -> None:
        if self._ticker.running:
            self._ticker.stop()

    def _tell(self) -> None:
        assert self.survey is not None
        if any(self.survey.is_well(node) for node in self.nodes):  # so far
            return
        self._ticker.stop()
        self._told = True
        errors = [self.errors.get(node.name) or f"{node.name}: no answer yet" for node in self.nodes]
        logger.warning(
            "No node can be used yet; waiting for one, at most %g s (DISTRIBUTED_FLEET_TIMEOUT), Ctrl-C ends it:\n  %s",
            self.wait, "\n  ".join(map(str, errors)),
        )  # fmt: skip


def _log_risks(findings: Sequence[Finding], nodes: int) -> None:
    """Once for all nodes of which the same is to be said."""
    by_words: dict[str, list[str]] = {}
    for one in findings:
        by_words.setdefault(one.words, []).append(one.node)
    for words, names in by_words.items():
        logger.warning(
            "%d of %d nodes: %s: %s (%s)", len(names), nodes, findings[0].check, words, shortened(", ".join(names))
        )


async def admit(node: Node, *, project: str, spider: str, version: str, feed: bool) -> None:
    """Check *node*, which failed the preflight, again. Raises ``NodeError`` if it still can't be used for this run."""
    survey = Survey(project=project, spider=spider, version=version, feed=feed)
    await survey.ask([node], CHECKS)
    for error in (finding.error for finding in survey.findings):
        if error is not None:
            raise error if isinstance(error, NodeError) else NodeRefusedError(node.name, str(error))


# The checks


async def _answers(node: Node, survey: Survey) -> tuple[Verdict, str]:
    try:
        status = await node.daemonstatus()
    except NodeUnauthorizedError:  # the next check's affair
        return Verdict.OK, "asks for a password"
    return Verdict.OK, f"running {status.running}, pending {status.pending}"


async def _credentials(node: Node, survey: Survey) -> tuple[Verdict, str]:
    await node.daemonstatus()
    # Also where there are some: a Scrapyd without a password takes any.
    if not node.address.username or await node.lets_anybody_in():
        return Verdict.RISK, f"none needed: {OPEN}"
    return Verdict.OK, "accepted"


async def _project(node: Node, survey: Survey) -> tuple[Verdict, str]:
    versions = await node.listversions(survey.project)
    # A project of scrapyd.conf's [settings] has no versions, and is listed.
    if not versions and survey.project not in (projects := await node.listprojects()):
        raise NodeRefusedError(
            node.name,
            f"project {survey.project!r} not found: deploy it: scrapy fleet deploy (it has {listed(projects)})",
        )
    survey.versions[node.name] = versions
    return Verdict.OK, survey.project


async def _version(node: Node, survey: Survey) -> tuple[Verdict, str]:
    # In an order that does not change from call to call: it is in the words of a refusal.
    survey.chosen = choose_version(dict(sorted(survey.versions.items())), survey.version, survey.project)
    if not survey.chosen:
        return Verdict.OK, "none, as of a project that is no egg"
    newest = max({version for known in survey.versions.values() for version in known}, key=order_of)
    if survey.version or newest in survey.versions[node.name] or order_of(newest) <= order_of(survey.chosen):
        return Verdict.OK, shortened(survey.chosen)
    return Verdict.WARN, (
        f"{shortened(newest)} is not there, so {shortened(survey.chosen)} is used on every node: scrapy fleet deploy"
    )


async def _spider(node: Node, survey: Survey) -> tuple[Verdict, str]:
    # The first call for a version runs ``scrapy list`` on the node; the first job would have to wait for it.
    spiders = await node.listspiders(survey.project, survey.chosen or None)
    if survey.spider not in spiders:
        raise NodeRefusedError(
            node.name,
            f"spider {survey.spider!r} is not in {_place(node, survey)} (it has {listed(spiders)}): "
            "scrapy fleet deploy",
        )
    return Verdict.OK, survey.spider


def _place(node: Node, survey: Survey) -> str:
    """Where a spider was looked for. The version is named where a newer one is there, which may have it."""
    project = f"project {survey.project!r} there"
    if all(order_of(version) <= order_of(survey.chosen) for version in survey.versions[node.name]):
        return project
    why = "the one asked for" if survey.version else "the newest that every node has"
    return f"version {shortened(survey.chosen)} of {project}, {why}"


async def _logs_dir(node: Node, survey: Survey) -> tuple[Verdict, str]:
    if not await node.serves("logs"):
        raise NodeRefusedError(
            node.name,
            "/logs/ is not served, and the receipts come home that way: set logs_dir = logs in its scrapyd.conf and "
            "restart Scrapyd; a proxy must let /logs/ through",
        )
    return Verdict.OK, "served"


async def _items_dir(node: Node, survey: Survey) -> tuple[Verdict, str]:
    if not survey.feed:
        return Verdict.OK, "of no matter, as no feed is set (DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS)"
    if await node.serves("items"):
        raise NodeRefusedError(
            node.name,
            "items_dir is set, so Scrapyd gives every job a second feed: make items_dir empty in its scrapyd.conf and "
            "restart Scrapyd",
        )
    return Verdict.OK, "not set"


#: What answers at once. An order in which each comes after what it needs.
CHECKS = (
    Check(name="answers", trouble="does not answer", ask=_answers),
    Check(name="credentials", trouble="no access", needs=("answers",), ask=_credentials),
    Check(name="project", trouble="no such project", needs=("credentials",), ask=_project),
    Check(name="version", trouble="no such version", needs=("project",), ask=_version),
    Check(name="spider", trouble="no such spider", needs=("version",), ask=_spider),
    Check(name="logs_dir", trouble="no way home", needs=("credentials",), ask=_logs_dir),
    Check(name="items_dir", trouble="a second feed", needs=("credentials",), ask=_items_dir),
)
_VERSION = 3  # its index
_TROUBLES = {check.name: check.trouble for check in CHECKS}
