"""The coordinator: divert what the fleet is to crawl, and keep the crawl open until the run is settled."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterable
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.http import Response
from scrapy.spidermiddlewares.base import BaseSpiderMiddleware
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from scrapy.utils.project import data_path
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from scrapy_distributed import wire
from scrapy_distributed.batch import Batcher
from scrapy_distributed.config import Config
from scrapy_distributed.dispatch import Dispatcher, JobTemplate
from scrapy_distributed.errors import ConfigError, NotSerializableError, TooLargeError
from scrapy_distributed.fingerprint import fingerprinter_of
from scrapy_distributed.fleet import addresses, project_of, targets_from_cfg
from scrapy_distributed.health import Fleet, Member
from scrapy_distributed.ledger import Ledger
from scrapy_distributed.node import Node
from scrapy_distributed.offsite import Offsite
from scrapy_distributed.preflight import preflight
from scrapy_distributed.receipt import without_password

logger = logging.getLogger(__name__)

BUFFER = 200  # requests that one page, or the start, may divert before they are written to the ledger


class Coordinator(BaseSpiderMiddleware):
    """Spider middleware of a coordinator. Refuses to start (``ValueError``) where a setting is wrong, another
    coordinator holds the ledger, or no node can be used."""

    def __init__(self, crawler: Crawler, *, config: Config, project: str, nodes: list[Node], clock: Any) -> None:
        super().__init__(crawler)
        assert crawler.spider is not None
        self.config = config
        self.spider: Spider = crawler.spider
        self.project = project
        self.clock = clock
        self.rules = _target_rules(config, self.spider)
        self.callbacks = frozenset(config.target_callbacks)
        self.offsite = Offsite(crawler)
        self.fingerprint = fingerprinter_of(crawler)
        self.fleet = Fleet([Member(node=node, fixed_backlog=config.node_backlog) for node in nodes])
        self.ledger = Ledger(config.ledger or data_path(f"distributed/{_file_name(self.spider.name)}.sqlite"))
        self.batcher = Batcher(size=config.batch_size, max_bytes=wire.MAX_JSON_BYTES // 4, max_age=config.batch_max_age)
        self.dispatcher: Dispatcher | None = None
        self._buffer: list[tuple[bytes, str]] = []
        self._walked = False
        self._walk_failed = False
        self._closing = False
        self._logged: set[str] = set()
        self._ticker: LoopingCall = LoopingCall(self._tick)
        self._ticker.clock = clock

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Coordinator:
        settings, spider = crawler.settings, crawler.spider
        assert spider is not None
        config = Config.from_settings(settings)
        if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise ConfigError(
                "TWISTED_REACTOR_ENABLED: found False, expected True on the coordinator; workers may go without"
            )
        if settings.get("JOBDIR"):
            raise ConfigError(
                "JOBDIR: a coordinator keeps its state in its ledger, and JOBDIR would skip pages that an interrupted"
                " run had seen and not fetched; leave it out, the same command resumes the run"
            )
        _check_targets(config, spider)
        targets = targets_from_cfg()
        nodes = [Node(address=address, deadline_seconds=config.timeout)
                 for address in addresses(config.target_hosts, targets=targets)]  # fmt: skip
        from twisted.internet import reactor

        coordinator = cls(crawler, config=config, project=project_of(targets, settings), nodes=nodes, clock=reactor)
        crawler.signals.connect(coordinator._spider_idle, signals.spider_idle)
        crawler.signals.connect(coordinator._spider_closed, signals.spider_closed)
        return coordinator

    # The wiring of the sending side

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:  # type: ignore[override]
        """Preflight, the run, the dispatcher; then the start of the spider, unless its walk is done already."""
        self._job_template(version="")  # what can't travel is refused before a node is asked
        nodes = [member.node for member in self.fleet.members]
        checks = preflight(nodes, project=self.project, spider=self.spider.name, version=self.config.version)
        version, faults = await maybe_deferred_to_future(Deferred.fromCoroutine(checks))
        to_walk = self.ledger.begin(self._identity(), resume=self.config.resume)
        logger.info(
            "Run %s of project %s on %d nodes, egg version %s%s", self.ledger.run, self.project, len(nodes),
            version or "(none)", "" if to_walk else "; its walk is done", extra=self._extra,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            ledger=self.ledger, fleet=self.fleet, job=self._job_template(version=version), config=self.config,
            spider=self.spider, stats=self._stats, clock=self.clock, changed=self._changed, stranded=self._stranded,
        )  # fmt: skip
        for fault in faults.values():
            self.dispatcher.node_failed(fault)
        self.batcher.add(self.ledger.queued(), self.clock.seconds())
        self._close_batches(self.batcher.take_full())
        self.dispatcher.start()
        self._ticker.start(1.0, now=False)
        return self._start(start, walk=to_walk)

    async def _start(self, start: AsyncIterator[Any], *, walk: bool) -> AsyncIterator[Any]:
        if not walk:
            return
        taken = 0
        try:
            async for output in start:
                processed = self._get_processed(output, None)
                if processed is not None:
                    yield processed
                    continue
                taken += 1
                if taken % BUFFER == 0:  # a start of millions must leave time for sending them
                    await maybe_deferred_to_future(deferLater(self.clock, 0))
        except Exception:
            self._walk_failed = True
            raise
        finally:
            self._write()

    def _job_template(self, *, version: str) -> JobTemplate:
        config = self.config
        settings = dict(config.worker_settings)
        if self.rules:
            settings["DISTRIBUTED_TARGET_RULE"] = ",".join(map(str, self.rules))
        if config.target_callbacks:
            settings["DISTRIBUTED_TARGET_CALLBACKS"] = ",".join(config.target_callbacks)
        if config.target_feed_url:
            settings |= {
                "FEED_URI": config.target_feed_url,
                "FEEDS": "{}",
            }  # else the project's own would be written too
        missing = [name for name in config.worker_args if not hasattr(self.spider, name)]
        if missing:
            raise ConfigError(f"DISTRIBUTED_WORKER_ARGS: the spider has no {', '.join(missing)}; give it with -a")
        args = {name: str(getattr(self.spider, name)) for name in config.worker_args}
        return JobTemplate(project=self.project, spider=self.spider.name, version=version, settings=settings, args=args)

    def _identity(self) -> dict[str, Any]:
        """What makes two crawls the same run. Spider arguments only as a digest: they may hold a password."""
        arguments = {name: value for name, value in vars(self.spider).items()
                     if isinstance(value, str | int) and not name.startswith("_")}  # fmt: skip
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:16]
        return {
            "project": self.project, "spider": self.spider.name, "arguments": digest,
            "targets": [sorted(self.rules), sorted(self.callbacks)],
        }  # fmt: skip

    # Diverting

    def get_processed_request(self, request: Request, response: Response | None) -> Request | None:
        if not self._is_target(request):
            return request
        stats = self._stats
        if not request.url.startswith(("http://", "https://")):  # a page that links file:///etc/passwd is not obeyed
            stats.inc_value("distributed/unsupported_scheme")
            self._log_once("unsupported_scheme", "Not diverted, only http and https are: %s", request)
            return None
        if self.offsite.filter(request):
            stats.inc_value("distributed/offsite")
            return None
        request.meta.pop("distributed", None)
        try:
            body = wire.encode_request(request, self.spider)
            wire.check_size(body)
        except (NotSerializableError, TooLargeError) as error:
            kind = "too_large" if isinstance(error, TooLargeError) else "not_serializable"
            stats.inc_value(f"distributed/local/{kind}")
            self._log_once(kind, "Crawled here, it can't travel: %s: %s", request, error)
            return request
        self._buffer.append((self._key(request), body))
        if len(self._buffer) >= BUFFER:
            self._write()
        return None

    def process_spider_output(
        self, response: Response | None, result: Iterable[Any], spider: Spider | None = None
    ) -> Iterable[Any]:
        try:
            yield from super().process_spider_output(response, result)
        finally:
            self._write()

    async def process_spider_output_async(
        self, response: Response | None, result: AsyncIterator[Any], spider: Spider | None = None
    ) -> AsyncIterator[Any]:
        try:
            async for output in super().process_spider_output_async(response, result):
                yield output
        finally:
            self._write()

    def _is_target(self, request: Request) -> bool:
        meta = request.meta
        if meta.get("rule") in self.rules or meta.get("distributed") is True:
            return True
        return bool(self.callbacks) and getattr(request.callback, "__name__", "parse") in self.callbacks

    def _key(self, request: Request) -> bytes:
        """The fingerprint; for a request that is not to be filtered with the number of its occurrence, so that a
        resumed walk finds its own again."""
        key = self.fingerprint(request)
        if not request.dont_filter:
            return key
        return key + self.ledger.occurrence(key).to_bytes(4, "big")

    def _write(self) -> None:
        """What a page has diverted goes into the ledger, before the next page's callback runs."""
        if not self._buffer:
            return
        try:
            new = self.ledger.divert(self._buffer)
            duplicates = len(self._buffer) - len(new)
            self._buffer.clear()
            self._stats.inc_value("distributed/diverted", len(new))
            if duplicates:
                self._stats.inc_value("distributed/duplicates", duplicates)
            self.batcher.add(new, self.clock.seconds())
            self._close_batches(self.batcher.take_full())
        except sqlite3.Error as error:
            self._walk_failed = True
            logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
            self._close("ledger_failed")

    def _close_batches(self, batches: list[list[str]]) -> None:
        if not batches:
            return
        made = self.ledger.close_batches(batches, self.batcher.bodies)
        self._stats.inc_value("distributed/batches", made)
        if self.dispatcher is not None:
            self.dispatcher.send_ready()

    def _tick(self) -> None:
        self._write()
        if self.batcher.overdue(self.clock.seconds()):
            self._close_batches(self.batcher.take_all())

    # The end

    def _spider_idle(self) -> None:
        """Nothing is left to crawl here: close the open batch, and wait for the run."""
        self._write()
        self._close_batches(self.batcher.take_all())
        if not self._walked and not self._walk_failed:
            self._walked = True
            self.ledger.walked()
        if not self._done():
            raise DontCloseSpider

    def _done(self) -> bool:
        if self.batcher.bodies or self._buffer:
            return False
        return self.ledger.settled() if self.config.wait else self.ledger.posted()

    def _changed(self) -> None:
        """A batch was taken or settled: close at once if that was the last, the engine's heartbeat may be 5 s away."""
        engine = self.crawler.engine
        if self._closing or not self._walked or engine is None or not engine.spider_is_idle() or not self._done():
            return
        answers = self.crawler.signals.send_catch_log(
            signals.spider_idle, spider=self.spider, dont_log=(DontCloseSpider, CloseSpider)
        )
        raised = [answer.value for _, answer in answers if isinstance(answer, Failure)]
        if not any(isinstance(error, DontCloseSpider) for error in raised):
            asked = next((error.reason for error in raised if isinstance(error, CloseSpider)), None)
            self._close(asked or "finished")

    def _stranded(self) -> None:
        logger.error(
            "No node could be used for %d s (DISTRIBUTED_FLEET_TIMEOUT): giving up for now", self.config.fleet_timeout,
            extra=self._extra,
        )  # fmt: skip
        self._close("fleet_unusable")

    def _close(self, reason: str) -> None:
        if not self._closing and self.crawler.engine is not None:
            self._closing = True
            deferred_from_coro(self.crawler.engine.close_spider_async(reason=reason))

    async def _spider_closed(self, reason: str) -> None:
        await maybe_deferred_to_future(Deferred.fromCoroutine(self._shut_down(reason)))

    async def _shut_down(self, reason: str) -> None:
        self._closing = True
        if self._ticker.running:
            self._ticker.stop()
        try:
            if self.dispatcher is not None:
                self._write()
                self._close_batches(self.batcher.take_all())
                await self.dispatcher.drain(self.config.shutdown_timeout)
                self._report(reason)
        except sqlite3.Error as error:
            logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        finally:
            self.ledger.close()

    def _report(self, reason: str) -> None:
        """The summary, in stats and log; and how to go on, if the run is not over."""
        over = self.ledger.end()
        balance = self.ledger.balance()
        for name, count in balance.as_dict().items():
            self._stats.set_value(f"distributed/{name}", count)
        for key, value in self.ledger.worker_stats().items():
            self._stats.set_value(f"distributed/workers/{key}", value)
        log = logger.info if balance.holds else logger.critical
        log("Run %s: %s", self.ledger.run, balance, extra=self._extra)
        if over and not balance.diverted:
            logger.warning("Nothing was diverted: no request matched %s", self._targets(), extra=self._extra)
        if balance.failed or balance.dead:
            logger.warning("See why: scrapy batches failed --ledger %s", self.ledger.path, extra=self._extra)
        if not over:
            logger.warning(
                "Run %s is not finished (%s): %d requests are queued, %d in flight; nothing is lost, the same command"
                " takes it up again", self.ledger.run, reason, balance.queued, balance.in_flight, extra=self._extra,
            )  # fmt: skip

    def _targets(self) -> str:
        rules = f"DISTRIBUTED_TARGET_RULE = {sorted(self.rules)}, " if self.rules else ""
        callbacks = f"DISTRIBUTED_TARGET_CALLBACKS = {sorted(self.callbacks)}, " if self.callbacks else ""
        return f"{rules}{callbacks}meta['distributed']"

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}

    def _log_once(self, kind: str, message: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(message + " (the next ones are only counted)", *values, extra=self._extra)


def _target_rules(config: Config, spider: Spider) -> tuple[int, ...]:
    """The rules named by index, and those whose callback is named: a rule's requests carry CrawlSpider's own."""
    callbacks = (rule.callback for rule in getattr(spider, "rules", ()))
    names = [callback if isinstance(callback, str) else getattr(callback, "__name__", None) for callback in callbacks]
    by_name = (index for index, name in enumerate(names) if name in config.target_callbacks)
    return tuple(sorted({*config.target_rule, *by_name}))


def _check_targets(config: Config, spider: Spider) -> None:
    """Refuse what would end as a crawl on this machine alone, which nobody asked for."""
    if not config.target_hosts:
        raise ConfigError(
            "DISTRIBUTED_TARGET_HOSTS: found nothing, expected the Scrapyd nodes of the fleet, e.g. ['scrapyd1:6800'];"
            " to crawl this spider on this machine alone set DISTRIBUTED_ENABLED = False"
        )
    rules = getattr(spider, "rules", None)
    if rules and not config.target_rule and not config.target_callbacks:
        raise ConfigError(
            "DISTRIBUTED_TARGET_RULE: found nothing, expected the index of the rule whose requests the fleet is to"
            " crawl, e.g. 1; or name callbacks in DISTRIBUTED_TARGET_CALLBACKS"
        )
    if config.target_rule and rules is not None and max(config.target_rule) >= len(rules):
        raise ConfigError(
            f"DISTRIBUTED_TARGET_RULE: found {max(config.target_rule)}, the spider's rules are 0 to {len(rules) - 1}"
        )
    unknown = [name for name in config.target_callbacks if not callable(getattr(spider, name, None))]
    if unknown:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_CALLBACKS: found {', '.join(unknown)}, expected names of methods of the spider"
        )
    if without_password(config.target_feed_url) != config.target_feed_url:
        logger.warning(
            "DISTRIBUTED_TARGET_FEED_URL has a password: it is in the command line of every job and in the logs of the"
            " nodes. A storage whose credentials are the node's own (s3: AWS_* in its environment) keeps it out",
            extra={"spider": spider},
        )
    if "DISTRIBUTED_START_URL" in config.worker_settings:
        raise ConfigError("DISTRIBUTED_WORKER_SETTINGS: has DISTRIBUTED_START_URL, which is the batch's own")


def _file_name(spider: str) -> str:
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in spider).lstrip(".")
