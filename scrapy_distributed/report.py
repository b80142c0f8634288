"""What the coordinator says at its end: the account in stats and log; and how to go on, if the run is not over."""

from __future__ import annotations

import logging

from scrapy.crawler import Crawler

from scrapy_distributed.ledger import Ledger

logger = logging.getLogger(__name__)


def report(ledger: Ledger, crawler: Crawler, reason: str, *, targets: str, wait: bool) -> None:
    """End the run in *ledger* if it is over, and tell. *reason*: why the crawl closes; *targets*: what was diverted;
    *wait*: whether it was to wait for the workers."""
    extra = {"spider": crawler.spider}
    over = ledger.end()
    balance = ledger.balance()
    assert crawler.stats is not None
    for name, count in balance.as_dict().items():
        crawler.stats.set_value(f"distributed/{name}", count)
    for key, value in ledger.worker_stats().items():
        crawler.stats.set_value(f"distributed/workers/{key}", value)
    log = logger.info if balance.holds else logger.critical
    log("Run %s: %s", ledger.run, balance, extra=extra)
    if over and not balance.diverted:
        logger.warning("Nothing was diverted: no request matched %s", targets, extra=extra)
    if balance.failed or balance.dead:
        logger.warning("See why: scrapy batches failed --ledger %s", ledger.path, extra=extra)
    if balance.dead:
        logger.warning("To try again what is dead: scrapy batches retry --state dead --ledger %s, then the same"
                       " command", ledger.path, extra=extra)  # fmt: skip
    if not over and not wait and not balance.queued:
        logger.warning(
            "Run %s is handed over: %d requests are with the nodes. The same command with DISTRIBUTED_WAIT=True looks"
            " after them, with False it begins a new run", ledger.run, balance.in_flight, extra=extra,
        )  # fmt: skip
    elif not over:
        logger.warning(
            "Run %s is not finished (%s): %d requests are queued, %d in flight; %s, the same command takes it up"
            " again", ledger.run, reason, balance.queued, balance.in_flight,
            "nothing is lost" if balance.holds else "THE BALANCE DOES NOT HOLD", extra=extra,
        )  # fmt: skip
