"""``scrapy fleet doctor``: what can be told of a crawl without a node, and the words for what was found.

All that preflight asks at the nodes comes besides, and a ``probe``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from scrapy import Spider
from scrapy.settings import BaseSettings
from scrapy.spiderloader import get_spider_loader

from scrapy_distributed.addon import Addon
from scrapy_distributed.config.advice import unknown
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import where_items_go
from scrapy_distributed.config.told import block, lines_of_command
from scrapy_distributed.dispatch.job_template import job_template
from scrapy_distributed.divert.diverter import in_words, rules_of, target_rules
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.fleet.preflight import Finding, Survey, Verdict
from scrapy_distributed.middleware import DistributedSpiderMiddleware
from scrapy_distributed.wire.job import MAX_ARGUMENTS_BYTES
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.payload import MAX_VALUE_BYTES
from scrapy_distributed.words import listed, shortened

FEW_NODES = 5  # so many are shown with all checks
HERE = "here"  # in the place of a node's name: what is checked on this machine
#: What activates the plugin in a project, by the setting that names it.
_ACTIVATION: dict[str, tuple[type | str, ...]] = {
    "ADDONS": (Addon, "scrapy_distributed.Addon", "scrapy_distributed.addon.Addon"),
    "SPIDER_MIDDLEWARES": (
        DistributedSpiderMiddleware,
        "scrapy_distributed.middleware.DistributedSpiderMiddleware",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The spider whose crawl is checked. *kind* is ``None`` where it is not one of this folder's project; *settings*
    have its ``custom_settings`` in them, *note* is what is to be said of it."""

    name: str
    kind: type[Spider] | None
    settings: BaseSettings
    note: str = ""


def subject(settings: BaseSettings, name: str | None) -> Subject:
    """The spider *name*, else the first of the project that is distributed. Raises ``ConfigError``."""
    try:
        loader = get_spider_loader(settings)
        kinds = {one: loader.load(one) for one in sorted(loader.list()) if name in (None, one)}
    except Exception as error:  # whatever the project's modules raise
        raise ConfigError(f"the spiders of this project can't be loaded: {type(error).__name__}: {error}") from None
    of_spider = {one: settings_of(kind, settings) for one, kind in kinds.items()}
    if name is not None:
        note = "" if name in kinds else f" is not in the project of this folder (it has {listed(loader.list())})"
        return Subject(name=name, kind=kinds.get(name), settings=of_spider.get(name, settings), note=note)
    found = [one for one, own in of_spider.items() if own.getbool("DISTRIBUTED_ENABLED", True)]
    if not found:
        raise ConfigError(
            "no spider: expected one in the project of this folder that does not set DISTRIBUTED_ENABLED = False, or "
            "its name with --spider"
        )
    note = f", the first of {len(found)} that are distributed; another one with --spider" if len(found) > 1 else ""
    return Subject(name=found[0], kind=kinds[found[0]], settings=of_spider[found[0]], note=note)


def settings_of(kind: type[Spider], settings: BaseSettings) -> BaseSettings:
    own = settings.copy()
    kind.update_settings(own)
    return own


def job_of(
    subject: Subject, config: Config, project: str, command: CommandLine, nodes: Iterable[NodeAddress] = (),
    *, shared: bool = False,
) -> JobTemplate:  # fmt: skip
    """What a job of this spider gets. *command*: what would start the crawl; *shared*: of a run that workers join.
    Raises ``ConfigError``."""
    rules = target_rules(config, rules_of(subject.kind))
    return job_template(
        config, spider=subject.name, command=command, settings=subject.settings, project=project, rules=rules,
        version="", items_go=where_items_go(config, subject.settings, shared=shared), nodes=nodes,
    )  # fmt: skip


def found_here(
    subject: Subject,
    config: Config,
    command: CommandLine,
    job: JobTemplate | ConfigError,
    *,
    nodes: int,
    slots: int = 0,
    elsewhere: Sequence[str] = (),
    joined: int | None = None,
) -> list[Finding]:
    """What can be told without a node: of Scrapyds there are *nodes*, of workers on this machine *slots*; *elsewhere*:
    other machines, where Scrapyds are; *joined*: slots of workers that have joined shared runs."""
    said = _said(subject, config, command, job, nodes=nodes, slots=slots, elsewhere=elsewhere, joined=joined)
    return [_plugin(subject), *_settings(subject), _spider(subject), *said, _job(job)]


def _plugin(subject: Subject) -> Finding:
    for setting, names in _ACTIVATION.items():
        components = subject.settings.getdict(setting)
        if any(components.get(name) is not None for name in names):
            return _here("plugin", Verdict.OK, f"activated by {setting}")
    advice = 'ADDONS = {"scrapy_distributed.Addon": 500}'
    return _here("plugin", Verdict.FAIL, f"not activated in this project: {advice}")


def _settings(subject: Subject) -> list[Finding]:
    return [_here("setting", Verdict.WARN, sentence) for sentence in unknown(subject.settings)]


def _spider(subject: Subject) -> Finding:
    return _here("spider", Verdict.OK if subject.kind else Verdict.FAIL, f"{subject.name}{subject.note}")


def _said(
    subject: Subject, config: Config, command: CommandLine, job: JobTemplate | ConfigError, *, nodes: int, slots: int,
    elsewhere: Sequence[str], joined: int | None,
) -> list[Finding]:  # fmt: skip
    """What the crawl would say before its first batch. Of its warnings only what is wrong is one here as well: a feed
    may come with -O, and what a pipeline is for its owner knows."""
    lines = lines_of_command(command, scrapyds=nodes > 0)
    if not isinstance(job, ConfigError):
        rules = target_rules(config, rules_of(subject.kind))
        try:
            lines = block(
                config, subject.settings, command=command, job=job.settings, spider=subject.kind, nodes=nodes,
                slots=slots, targets=in_words(rules, config.target_callbacks),
                items_go=where_items_go(config, subject.settings, shared=joined is not None), elsewhere=elsewhere,
                joined=joined,
            )  # fmt: skip
        except Exception as error:  # whatever the project's modules raise
            return [_here("item pipelines", Verdict.FAIL, f"{type(error).__name__}: {shortened(str(error))}")]
    return [_here(line.subject, Verdict.WARN if line.wrong else Verdict.OK, line.words) for line in lines]


def _job(job: JobTemplate | ConfigError) -> Finding:
    if isinstance(job, ConfigError):
        return _here("job", Verdict.FAIL, str(job), job)
    used = sum(len(f"{name}={value}".encode()) for name, value in [*job.settings.items(), *job.args.items()])
    words = f"settings and arguments of {used:,} bytes, at most {MAX_ARGUMENTS_BYTES - MAX_VALUE_BYTES:,} travel"
    return _here("job", Verdict.OK, words)


def _here(check: str, verdict: Verdict, words: str, error: ConfigError | None = None) -> Finding:
    return Finding(node=HERE, check=check, verdict=verdict, words=words, error=error)


def all_well(findings: Sequence[Finding]) -> bool:
    """Whether a crawl has all that it needs. A risk does not keep it from its end."""
    return all(finding.verdict in (Verdict.OK, Verdict.RISK) for finding in findings)


def plain(findings: Sequence[Finding]) -> list[str]:
    """One line per check, in columns. Of more than a few nodes only those with something to say, and how many of them
    there are."""
    by_node: dict[str, set[Verdict]] = {}
    for one in findings:
        if one.node != HERE:
            by_node.setdefault(one.node, set()).add(one.verdict)
    shown, last = findings, []
    if len(by_node) > FEW_NODES:
        shown = [one for one in findings if by_node.get(one.node) != {Verdict.OK}]
        last = [f"{len(by_node)} nodes: {_counts(by_node.values())}"]
    width = max((len(finding.node) for finding in shown), default=0)
    return [f"{one.node:<{width}}  {one.verdict.value:<4}  {one.check}: {one.words}" for one in shown] + last


def _counts(nodes: Iterable[Set[Verdict]]) -> str:
    """How many of *nodes* are well, and how many are not: each by its worst verdict."""
    order = (Verdict.FAIL, Verdict.SKIPPED, Verdict.WARN, Verdict.RISK, Verdict.OK)
    worst = Counter(next(verdict for verdict in order if verdict in node) for node in nodes)
    return ", ".join(f"{worst[verdict]} {verdict.value}" for verdict in reversed(order) if worst[verdict])


def as_json(survey: Survey, findings: Sequence[Finding]) -> str:
    """The findings as one line of JSON."""
    checks = [
        {"node": one.node, "check": one.check, "verdict": one.verdict.name.lower(), "words": one.words}
        for one in findings
    ]
    asked = {"project": survey.project, "spider": survey.spider, "version": survey.chosen}
    return json.dumps({**asked, "well": all_well(findings), "checks": checks})
