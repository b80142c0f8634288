"""The job without requests that ``scrapy fleet doctor`` sends to a node: its receipt must come home.

Only such a job tells whether the plugin is installed there: Scrapyd knows nothing of it. To the node it is an attempt
like others, and goes the way that these go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from tempfile import TemporaryFile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed import __version__
from scrapy_distributed.agent.post_mortem import cause_of_death, last_error
from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.errors import NodeAmbiguousError, NodeError, NodeRefusedError, WireError
from scrapy_distributed.feeds.place import PROBE_BATCH, Trial
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.preflight import CHECKS, OPEN, Check, Finding, Survey, Verdict
from scrapy_distributed.ledger.states import Attempt, AttemptState, new_token
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import shortened

#: What the probe gets besides the settings of a real job, so that it leaves nothing behind.
PROBE_SETTINGS = {
    "FEED_STORE_EMPTY": "False",
    # Where the plugin is not active, the job is the spider's own crawl: Scrapy drops every request of it for this.
    "URLLENGTH_LIMIT": "1",
}
#: What a probe says of the places of its feeds.
_TRIALS = {
    Trial.WRITTEN: "a file was written where its feed goes, and removed",
    Trial.LEFT: "a file was written where its feed goes, and could not be removed: remove *probe-{job}-* there",
    Trial.REACHED: "the server of its feed let it in; not tried whether it takes a file, as it would keep that",
    Trial.UNTRIED: "not tried whether its feed can be written",
}
POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0  # for a probe that runs and is told to end
#: What mends the usual causes of death, by what stands in their words.
_REMEDIES = (
    (r"No module named '?scrapy_distributed", "install scrapy-distributed-batches on this node"),
    (r"ModuleNotFoundError|ImportError", "install on this node what the project imports"),
    (r"missing \d+ required", "give the argument with -a NAME=VALUE"),
    (r"ADDONS", "then deploy again where it is deployed: scrapy fleet deploy"),
)


def probe_of(job: JobTemplate, config: Config) -> JobTemplate:
    """*job* as a job that leaves nothing behind. It has the feeds that a crawl would have, as a node may lack what they
    need or not be able to write there, but not those of the project: nobody knows what is in them."""
    feeds = {url: {**options, "store_empty": False} for url, options in config.target_feeds.items()}
    return replace(job, settings={**job.settings, **PROBE_SETTINGS, "FEEDS": json.dumps(feeds)})


async def examine(nodes: Sequence[Node], survey: Survey, probe: Probe | None) -> list[Finding]:
    """What every check has found, by node. Without *probe* no job is sent."""

    async def ask(node: Node, survey: Survey) -> tuple[Verdict, str]:
        assert probe is not None
        carrier = ScrapydCarrier(node, project=survey.project, spider=survey.spider, feed=survey.feed)
        return await probe.ask(carrier, survey)

    trial = [Check(name="probe", trouble="no receipt", needs=("spider", "logs_dir"), ask=ask)] if probe else []
    await survey.ask(nodes, [*CHECKS, *trial])
    return survey.findings


class _Attempt(Attempt):
    """The probe as an attempt, at a batch of no run: by its label the worker knows what it is."""

    @classmethod
    def at(cls, carrier: Carrier) -> _Attempt:
        run = f"doctor-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"
        return cls(run=run, batch=0, number=1, node=carrier.name, url=carrier.url, token=new_token(),
                   state=AttemptState.BOUND, positions=0)  # fmt: skip

    @property
    def label(self) -> str:
        return PROBE_BATCH


class Probe:
    """Sends *job*, that of ``probe_of``, to nodes without requests, and waits for each one's final receipt, for at most
    *timeout* seconds. It is taken back if it has not started by then, and ended if it runs. *code*: the digest of that
    of the project here, '' if it is not known."""

    def __init__(self, *, job: JobTemplate, timeout: float, clock: Any, code: str = "") -> None:
        self.job = job
        self.code = code
        self.timeout = timeout
        self.clock = clock
        self._under_way = 0
        self._stopped: Deferred[None] | None = None

    def stop(self) -> Deferred[None]:
        """Take back what is under way, and send nothing any more. Fires when that is done."""
        self._stopped = self._stopped or Deferred()
        if not self._under_way and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Until the end of this ``stop`` does not fire."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if self._stopped:
                self.stop()

    async def ask(self, carrier: Carrier, survey: Survey) -> tuple[Verdict, str]:
        """Raises ``NodeError`` unless its receipt comes, and is good. *survey*: what is known of the node."""
        if self._stopped:
            raise NodeRefusedError(carrier.name, "interrupted before it was sent")
        begun = self._now()
        with self.at_work():
            receipt = await self._run(carrier, _Attempt.at(carrier), replace(self.job, version=survey.chosen))
        verdict, places = _places(receipt)
        words = "; ".join([f"its receipt came home after {self._now() - begun:.1f} s", *places])
        is_open = receipt.stats.get("distributed/open_scrapyd") and not carrier.ends_with_us
        if is_open and survey.verdict(carrier.name, "credentials") is not Verdict.RISK:
            words += f". But on its own machine, past a proxy, no password is needed: {OPEN}"
            verdict = Verdict.RISK if verdict is Verdict.OK else verdict
        if why := receipt.egg.differs(self.code) if receipt.egg else "":
            words, verdict = f"{words}. But {why}", Verdict.WARN
        return verdict, words

    async def _run(self, carrier: Carrier, attempt: Attempt, job: JobTemplate) -> Receipt:
        """The final receipt."""
        try:
            await carrier.send(attempt, "[]", job)
            state, receipt = await self._wait(carrier, attempt)
            before = None if receipt or state == "finished" else await self._end(carrier, attempt)
        except NodeError as error:
            with suppress(NodeError):
                await carrier.cancel(attempt, Signal.INT)
            if isinstance(error, NodeAmbiguousError):  # it can still arrive there, after our cancel
                words = str(error).removeprefix(f"{carrier.name}: ")
                raise NodeAmbiguousError(
                    carrier.name, f"{words} (job {attempt.job} may still start there; it ends by itself)"
                ) from None
            raise
        if receipt is None:
            raise NodeRefusedError(carrier.name, await self._why_none(carrier, attempt, state, before))
        if why := await self._why_bad(carrier, attempt, receipt):
            raise NodeRefusedError(carrier.name, why)
        if receipt.items_file is not None:  # an empty one; a proxy may keep it back
            with TemporaryFile() as file:
                await carrier.items(attempt, file, size=receipt.items_file.size, digest=receipt.items_file.digest)
        return receipt

    async def _wait(self, carrier: Carrier, attempt: Attempt) -> tuple[str | None, Receipt | None]:
        """The job's state, and its final receipt if it has come."""
        deadline = self._now() + self.timeout
        while True:
            # The state first: what has finished has written all that it ever will.
            state = await carrier.state(attempt)
            data = await carrier.receipt(attempt)
            try:
                receipt = Receipt.from_json(data) if data is not None else None
            except WireError as error:
                advice = f"install the same version of scrapy_distributed on this node and here ({__version__})"
                raise NodeRefusedError(carrier.name, f"{error}: {advice}") from None
            if receipt is not None and receipt.final:
                return state, receipt
            if state == "finished" or self._stopped or self._now() >= deadline:
                return state, None
            await deferLater(self.clock, POLL_SECONDS)

    async def _end(self, carrier: Carrier, attempt: Attempt) -> str | None:
        """Cancel the job, and see that it ends. Returns what it was: pending, running or ``None``."""
        before = await carrier.cancel(attempt, Signal.INT)
        deadline = self._now() + GRACE_SECONDS
        while before == "running" and await carrier.state(attempt) == "running":
            if self._now() >= deadline:
                await carrier.cancel(attempt, Signal.KILL)
                break
            await deferLater(self.clock, POLL_SECONDS)
        return before

    async def _why_bad(self, carrier: Carrier, attempt: Attempt, receipt: Receipt) -> str:
        if not receipt.stored:
            why = last_error(await carrier.log_end(attempt))
            return (
                f"the job could not open or store its feed: {why or 'see its log'}; see also"
                " DISTRIBUTED_TARGET_FEED_URL or DISTRIBUTED_TARGET_FEEDS"
            )
        if receipt.finish_reason != "finished":
            return f"the job ended as {shortened(receipt.finish_reason)!r}, expected 'finished': see its log"
        return ""

    async def _why_none(self, carrier: Carrier, attempt: Attempt, state: str | None, before: str | None) -> str:
        if state == "finished":
            cause = cause_of_death(await carrier.log_end(attempt))
            remedy = next((f": {words}" for pattern, words in _REMEDIES if re.search(pattern, cause)), "")
            return f"the job ended without a receipt. {cause}{remedy}"
        if self._stopped:
            return "interrupted, the job was taken back"
        after = f"after {self.timeout:g} s"
        if before == "pending":
            return f"the job was still pending {after}, and was taken back: {await self._why_pending(carrier)}"
        if before == "running":
            return f"the job was still running {after}, and was ended: see its log, or give a longer --timeout"
        return f"the node took the job and knows nothing of it {after}: restart Scrapyd"

    async def _why_pending(self, carrier: Carrier) -> str:
        if carrier.ends_with_us:
            return "no process for it was there by then, give a longer --timeout"
        if running := (await carrier.look()).running:
            return (
                f"{running} jobs run there and may hold all slots, wait for them or give a longer --timeout; "
                "if they do not end, restart Scrapyd"
            )
        return "it runs nothing and starts nothing, restart Scrapyd"

    def _now(self) -> float:
        return float(self.clock.seconds())


def _places(receipt: Receipt) -> tuple[Verdict, list[str]]:
    """What the job has found out about the places of its feeds."""
    words = []
    for trial, meaning in _TRIALS.items():
        start = f"distributed/probe/{trial.value}/"
        schemes = sorted(name.removeprefix(start) for name in receipt.stats if name.startswith(start))
        words += [f"{meaning.format(job=receipt.job)} ({shortened(', '.join(schemes))})"] if schemes else []
    left = any(name.startswith(f"distributed/probe/{Trial.LEFT.value}/") for name in receipt.stats)
    return Verdict.WARN if left else Verdict.OK, words
