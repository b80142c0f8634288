"""What the coordinator says at its end: the account in stats and log; and how to go on, if the run is not over."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from scrapy.crawler import Crawler

from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.divert.diverter import STAYED
from scrapy_distributed.ledger.balance import Balance, Losses, Raised, raised_lines
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sums import MOST_STATS
from scrapy_distributed.words import counted, shortened

logger = logging.getLogger(__name__)

LONGEST_RAISED = 600  # characters: a reason, what the first error said, where it was raised


def report(
    ledger: Ledger, crawler: Crawler, reason: str, *, targets: str, wait: bool, stored: bool, walked: bool,
    cutter: Cutter,
) -> bool:  # fmt: skip
    """End the run in *ledger* if it is over, and tell; returns whether it is.

    *reason*: why the crawl closes; *targets*: what was diverted; *wait*: whether it was to wait for the workers;
    *stored*: whether the feeds have what has come home; *walked*: whether the walk is done; *cutter*: with what was
    measured of jobs and slots."""
    extra = {"spider": crawler.spider}
    over = stored and ledger.account.end(walked=walked)
    balance, account = ledger.account.balance(), ledger.account
    _report_shares(crawler, cutter, most_of_it=over and 2 * cutter.size.requests >= balance.diverted)
    tell_account(
        crawler, ledger.run, balance, worker_stats=account.worker_stats(), losses=account.losses(),
        raised=account.raised(), targets=targets, over=over,
    )  # fmt: skip
    _tell_what_to_do(ledger, balance, reason, over=over, wait=wait, stored=stored, extra=extra)
    return over


def tell_account(
    crawler: Crawler, run: str, balance: Balance, *, worker_stats: tuple[Mapping[str, float], int], losses: Losses,
    raised: Sequence[Raised], targets: str, over: bool,
) -> None:  # fmt: skip
    """How *run* stands, in stats and log. *worker_stats*: as of ``sum_of_stats``; *targets*: what was diverted; *over*:
    whether the run is."""
    extra = {"spider": crawler.spider}
    assert crawler.stats is not None
    for name, count in balance.as_dict().items():
        crawler.stats.set_value(f"distributed/{name}", count)
    _report_worker_stats(crawler, *worker_stats)
    log = logger.info if balance.holds else logger.critical
    log("Run %s: %s", run, balance, extra=extra)
    _report_losses(crawler, losses)
    if not _report_stayed(crawler, worker_stats[0]) and over and not balance.diverted:
        logger.warning("Nothing was diverted: no request matched %s", targets, extra=extra)
    for line in raised_lines(raised):
        logger.warning("%s", shortened(line[0].upper() + line[1:], LONGEST_RAISED), extra=extra)


def _tell_what_to_do(
    ledger: Ledger, balance: Balance, reason: str, *, over: bool, wait: bool, stored: bool, extra: dict[str, Any]
) -> None:  # fmt: skip
    if balance.failed or balance.dead:
        logger.warning("See why: scrapy batches failed --ledger %s", ledger.path, extra=extra)
    if balance.dead:
        logger.warning("To try again what is dead: scrapy batches retry --state dead --ledger %s, then the same"
                       " command", ledger.path, extra=extra)  # fmt: skip
    if not over and not wait and not balance.queued:
        logger.warning(
            "Run %s is handed over: %s with the nodes. The same command with DISTRIBUTED_WAIT=True looks"
            " after them, with False it begins a new run", ledger.run, counted(balance.in_flight, "request"),
            extra=extra,
        )  # fmt: skip
    elif not stored:
        logger.error(
            "Run %s is not finished: a feed lacks items that have come home, the lines above tell why, and what to do."
            " All others are kept; then the same command writes the feeds again, and crawls only what is not settled",
            ledger.run, extra=extra,
        )  # fmt: skip
    elif over and ledger.account.stopped is not None:
        logger.info(
            "Run %s is over, it was stopped (%s): %s not crawled. The same command begins a new one; to go"
            " on with it: scrapy batches retry --ledger %s, then the same command", ledger.run,
            ledger.account.stopped, counted(balance.not_crawled, "request"), ledger.path, extra=extra,
        )  # fmt: skip
    elif not over:
        logger.warning(
            "Run %s is not finished (%s): %s queued, %d in flight; %s, the same command takes it up"
            " again", ledger.run, reason, counted(balance.queued, "request"), balance.in_flight,
            "nothing is lost" if balance.holds else "THE BALANCE DOES NOT HOLD", extra=extra,
        )  # fmt: skip


def _report_stayed(crawler: Crawler, worker_stats: Mapping[str, float]) -> bool:
    """Tell of requests for the fleet that were crawled where they were found; returns whether some were so here."""
    assert crawler.stats is not None
    extra = {"spider": crawler.spider}
    if here := _stayed(crawler.stats.get_stats()):
        logger.warning(
            "Matched, and crawled here as they could not travel: %s (%s); the log names the first of each kind, and"
            " why",
            counted(sum(here.values()), "request"), _in_words(here), extra=extra,
        )  # fmt: skip
    if there := _stayed(worker_stats):
        logger.info(
            "Matched, and crawled by the jobs that found them as they could not be reported: %s (%s); the log of such a"
            " job names the first of each kind, and why", counted(sum(there.values()), "request"), _in_words(there),
            extra=extra,
        )  # fmt: skip
    return bool(here)


def _stayed(stats: Mapping[str, Any]) -> dict[str, int]:
    """By kind, how many requests for the fleet were crawled where they were found."""
    return {name.removeprefix(STAYED): int(count) for name, count in stats.items() if name.startswith(STAYED)}


def _in_words(counts: Mapping[str, int]) -> str:
    return shortened(", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))


def _report_worker_stats(crawler: Crawler, worker_stats: Mapping[str, float], left_out: int) -> None:
    assert crawler.stats is not None
    if left_out:
        crawler.stats.set_value("distributed/worker_stats_left_out", left_out)
        logger.warning(
            "Workers have reported more than %d stats: %d numbers of those that the fewest jobs have are in no sum",
            MOST_STATS,
            left_out,
            extra={"spider": crawler.spider},
        )
    for key, value in worker_stats.items():
        crawler.stats.set_value(f"distributed/workers/{key}", value)


def _report_losses(crawler: Crawler, losses: Losses) -> None:
    assert crawler.stats is not None
    for reason, number in losses.own.items():
        crawler.stats.set_value(f"distributed/lost/own/{reason}", number)
    for reason, number in losses.followed.items():
        crawler.stats.set_value(f"distributed/lost/followed/{reason}", number)
    crawler.stats.set_value("distributed/items_unexported", losses.unexported)
    crawler.stats.set_value("distributed/landed_twice", losses.twice)
    for line in losses.lines():
        logger.warning("%s", line[0].upper() + line[1:], extra={"spider": crawler.spider})


def _report_shares(crawler: Crawler, cutter: Cutter, *, most_of_it: bool) -> None:
    """*most_of_it*: most of the run was measured, so the shares are those of the run."""
    assert crawler.stats is not None
    if (share := cutter.size.startup_share()) is not None:
        crawler.stats.set_value("distributed/startup_share", round(share, 3))
    if most_of_it:
        time = cutter.slot_time
        crawler.stats.set_value("distributed/poll_share", round(time.share(time.polls), 3))
        crawler.stats.set_value("distributed/tail_share", round(time.share(time.tail), 3))
        if advice := time.advice(cutter.size, cutter.slots, cutter.elapsed):
            logger.info("%s", advice, extra={"spider": crawler.spider})
