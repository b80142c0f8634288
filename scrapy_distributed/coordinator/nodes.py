"""The nodes of a crawl: Scrapyds, and workers on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scrapy import Spider
from scrapy.settings import BaseSettings

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.values import AUTO
from scrapy_distributed.coordinator.limits import most_waiting
from scrapy_distributed.coordinator.local_command import local_command
from scrapy_distributed.coordinator.own_scrapyd import project_there, warn_of_names, without_cfg
from scrapy_distributed.coordinator.warm_start import WarmStart
from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.local_carrier import LocalCarrier
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.errors import ConfigError, NodeError
from scrapy_distributed.fleet.addresses import Target, addresses, project_of, targets_from_cfg
from scrapy_distributed.fleet.local_slots import local_slots
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.fleet.pace import Pace, Told
from scrapy_distributed.fleet.preflight import preflight


class Nodes:
    """*scrapyds*, and *slots* workers on this machine (0: none) that run ``scrapy`` *command*, with options that are
    *private*. *project*: its name on a Scrapyd; *feed*: whether jobs are told where to write their items; *targets*:
    those of ``scrapy.cfg``, by name."""

    def __init__(
        self, scrapyds: Sequence[Node], *, slots: int = 0, command: Sequence[str] = (), private: Sequence[str] = (),
        project: str, spider: Spider, feed: bool, warm: WarmStart | None = None,
        targets: Mapping[str, Target] | None = None, clock: Any,
    ) -> None:  # fmt: skip
        self.scrapyds = scrapyds
        self.slots = slots
        self.command = command
        self.private = private
        self.project = project
        self.warm = warm
        self.clock = clock
        self.spider = spider
        self.targets = targets or {}
        self._wanted: dict[str, Any] = {"project": project, "spider": spider.name, "feed": feed}
        self._agent: Agent | None = None

    @classmethod
    def of_crawl(
        cls, config: Config, *, settings: BaseSettings, spider: Spider, private: Sequence[str] = (),
        warm: WarmStart | None = None, clock: Any,
    ) -> Nodes:  # fmt: skip
        """Raises ``ConfigError`` where they can't be what *config* says."""
        targets = targets_from_cfg()
        warn_of_names(config.target_hosts, spider, targets=targets)
        with without_cfg(spider, targets=targets):
            slots = local_slots(config.target_hosts, targets)
            where = addresses(config.target_hosts, targets=targets)
        scrapyds = [Node(address=address, deadline_seconds=config.timeout) for address in where]
        command = local_command(type(spider)) if slots else ()
        check_nodes(config, scrapyds, command)
        project = settings.get("DISTRIBUTED_PROJECT") or project_there(spider) or project_of(targets, where, settings)
        return cls(
            scrapyds, slots=slots, command=command, private=private, targets=targets, project=project,
            spider=spider, feed=bool(config.feed_urls), warm=warm, clock=clock,
        )  # fmt: skip

    def fleet(self, ledger: Path, config: Config, settings: BaseSettings) -> Fleet:
        """Workers on this machine come first. *ledger*: beside this file is what they write."""
        backlog = config.node_backlog or most_waiting(settings)
        late = config.batch_size == AUTO and config.wait and not config.node_backlog
        nodes: list[tuple[Carrier, Pace]] = [(ScrapydCarrier(one, **self._wanted), Pace()) for one in self.scrapyds]
        if self.slots:
            nodes.insert(0, (self._local(ledger), Pace(said=Told(self.slots, 0.0))))
        return Fleet([
            Member(carrier=carrier, pace=pace, fixed_backlog=backlog, late=late) for carrier, pace in nodes
        ])  # fmt: skip

    def _local(self, ledger: Path) -> LocalCarrier:
        self._agent = Agent(JobFiles.beside(ledger), slots=self.slots, reactor=self.clock)
        return LocalCarrier(self._agent, command=self.command, private=self.private, ledger=ledger, clock=self.clock)

    async def check(self, *, version: str, wait: float) -> tuple[str, dict[str, NodeError]]:
        """The egg version that the run uses, and why which Scrapyds can't be used now: see ``preflight``. Raises
        ``ConfigError`` if there is nothing that can be used, and ``OSError`` where no files can be made here."""
        if self._agent is not None:
            self._agent.open(self.warm.take() if self.warm is not None else None)
        if not self.scrapyds:
            return "", {}
        with without_cfg(self.spider, targets=self.targets):
            return await preflight(
                self.scrapyds, version=version, clock=self.clock, wait=wait, others=bool(self.slots), **self._wanted
            )

    def __str__(self) -> str:
        here = f"{self.slots} workers on this machine" if self.slots > 1 else "a worker on this machine"
        there = f"{len(self.scrapyds)} node{'s' if len(self.scrapyds) > 1 else ''}"
        return " and ".join([here] * bool(self.slots) + [there] * bool(self.scrapyds))


def check_nodes(config: Config, scrapyds: Sequence[Node | NodeAddress], command: Sequence[str]) -> None:
    """*command*: what workers on this machine run, if there are any. Raises ``ConfigError``."""
    if command and not config.wait:
        raise ConfigError(
            "DISTRIBUTED_WAIT: found False, and workers on this machine end with the crawl that has started them;"
            " expected True, or Scrapyds alone in DISTRIBUTED_TARGET_HOSTS"
        )
    if command[:1] == ("runspider",) and scrapyds:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {scrapyds[0].name}, and a spider that no project has: a Scrapyd runs"
            " spiders of deployed projects; expected workers on this machine alone, ['local'], or 'scrapy crawl' in a"
            " project"
        )
