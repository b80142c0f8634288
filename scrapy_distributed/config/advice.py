"""What a coordinator says of settings that are valid, and hardly meant."""

from __future__ import annotations

import difflib

from scrapy.settings import BaseSettings

from scrapy_distributed.config.config import PREFIX, SETTINGS, Config, logger
from scrapy_distributed.config.values import shown
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.password import has_password

LEASE_INTERVALS = 3  # a lease shorter than so many polls or receipts ends jobs that are well


def unknown(settings: BaseSettings) -> list[str]:
    """A sentence on each ``DISTRIBUTED_*`` setting that nothing reads: most often misspelt."""
    known = [setting.name.removeprefix(PREFIX) for setting in SETTINGS]  # else the prefix alone makes any two alike
    names = (name.removeprefix(PREFIX) for name in settings if isinstance(name, str) and name.startswith(PREFIX))
    found = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f", {PREFIX}{close[0]} is" if close else ""
            found.append(f"{PREFIX}{name} is no setting of scrapy_distributed{meant}")
    return found


def warn_unknown(settings: BaseSettings) -> None:
    """Log what is ``unknown``."""
    for sentence in unknown(settings):
        logger.warning("%s", sentence)


def warn_lease(config: Config) -> None:
    """Log a lease that a few late answers or receipts would end."""
    longest = max(config.poll_interval, config.receipt_interval)
    if config.lease < LEASE_INTERVALS * longest:
        logger.warning(
            "DISTRIBUTED_LEASE: found %g s, expected at least %g: %d times the longer of DISTRIBUTED_POLL_INTERVAL and"
            " DISTRIBUTED_RECEIPT_INTERVAL; with less, jobs that are well are sent again",
            config.lease, LEASE_INTERVALS * longest, LEASE_INTERVALS,
        )  # fmt: skip


def warn_passwords(
    config: Config, *, seen: str = "ps, Scrapyd's log and its listjobs.json show it on every node"
) -> None:  # fmt: skip
    """Log feed URLs with a password in them: a job's settings can be *seen*."""
    for url in filter(has_password, config.feed_urls):
        logger.warning(
            "%s: found a password in %s, and %s. Expected credentials that the machines of workers have: a placeholder"
            " that FEED_URI_PARAMS fills in there (ftp), AWS_* in their environment (s3); see Security in the README",
            f"{PREFIX}TARGET_FEED{'_URL' if config.target_feed_url else 'S'}", shown(url) or "a feed URL", seen,
        )  # fmt: skip


def warn_wait(config: Config) -> None:
    """Log what nobody may have asked for: without receipts each worker has to follow what it finds."""
    if not config.wait and config.worker_targets == "report":
        logger.warning(
            "DISTRIBUTED_WAIT: found False, so nobody takes what workers report: each job follows the requests for the"
            " fleet that it finds itself, and items of pages that several jobs find come several times. Expected True"
            ' where pages on workers have such links; DISTRIBUTED_WORKER_TARGETS = "follow" says that this is meant'
        )


def check_feeds(config: Config) -> None:
    """For a coordinator; a worker is told what was chosen. Raises ``ConfigError`` if feeds are named in both ways."""
    if config.target_feed_url and config.target_feeds:
        raise ConfigError(
            "DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS: found both, expected one of them; to have format,"
            " fields and other options travel keep DISTRIBUTED_TARGET_FEEDS and remove DISTRIBUTED_TARGET_FEED_URL (set"
            ' it to "" where another file sets it), else remove DISTRIBUTED_TARGET_FEEDS'
        )
