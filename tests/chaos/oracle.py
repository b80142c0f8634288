"""The one oracle of all chaos tests: nothing is missing, nothing is there twice, and the balance holds."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from arena import Run, processes
from crawling import wait_for
from site_server import make_property

from scrapy_distributed.ledger_reader import LedgerReader

FIELDS = ("title", "price", "description", "address")


def prove(run: Run, urls: Sequence[str] | None = None, *, seconds: float = 60) -> None:
    """The run is over by itself, or is brought there by the same command; *urls* are those of its items, if they are
    not simply those of all properties."""
    run.finish(seconds)
    try:
        _balance(run)
        _items(run, urls)
        _leftovers(run)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{run.describe()}") from None


def _balance(run: Run) -> None:
    ended = run.crawl.process.returncode
    assert ended in (0, -signal.SIGKILL), f"the coordinator ended with {ended}"
    assert run.fleet.project.check(run.crawl) == 0, "scrapy batches check says no"
    balance = run.crawl.balance()
    balance.pop("duplicates", None)  # a walk that is done again finds everything again
    assert balance == {"diverted": run.properties, "crawled": run.properties}, f"{balance}"
    assert ended or run.crawl.stat("distributed/difference") == 0


def _items(run: Run, urls: Sequence[str] | None) -> None:
    items = run.crawl.items()
    found = Counter(item["url"] for item in items)
    expected = Counter(run.site.property_urls(range(run.properties)) if urls is None else urls)
    missing, too_many = sorted(expected - found), sorted(found - expected)
    assert not missing, f"{len(missing)} of {len(expected)} missing: {missing[:5]}"
    assert not too_many, f"{len(too_many)} there that should not be, or twice: {too_many[:5]}"
    if urls is None:
        truth = {url: make_property(number) for number, url in enumerate(expected)}
        wrong = [item for item in items if not _is_right(item, truth[item["url"]])]
        assert not wrong, f"{len(wrong)} items are not what the site has: {wrong[:3]}"


def _is_right(item: dict[str, Any], expected: Any) -> bool:
    return all(item[field] == getattr(expected, field) for field in FIELDS)


def _leftovers(run: Run) -> None:
    # SQLite leaves the last two where the last who looked was a reader, as the commands are.
    usual = {"ledger.sqlite", "ledger.sqlite.lock", "ledger.sqlite-shm", "ledger.sqlite-wal"}
    beside = [path for path in run.folder.glob("ledger.sqlite*") if path.name not in usual]
    unclosed = [path for path in run.folder.glob("*-wal") if path.stat().st_size]
    if not run.crawl.process.returncode:  # one that was killed when all was over had no time to tidy up
        assert not beside + unclosed, f"left beside the ledger: {beside + unclosed}"
    left = processes(run.crawl.process.pid)  # its process group: it was started in a session of its own
    assert not left, f"processes of the coordinator are left: {left}"


def no_repetition(run: Run) -> None:
    """After a run in which no work had to be done twice. A job that was taken back before it ran is no work."""
    with closing(LedgerReader(run.crawl.ledger)) as reader:
        last = reader.runs()[-1]
        jobs = {batch["number"]: reader.attempts(last, batch["number"]) for batch in reader.batches(last["id"])}
    again = {number: ran for number, tried in jobs.items()
             if len(ran := [attempt for attempt in tried if attempt["state"] != "unsent"]) != 1}  # fmt: skip
    assert not again, f"more than one attempt: {again}\n{run.describe()}"
    repeated = run.site.stats()["properties_repeated"]
    assert repeated == 0, f"the site was asked for {repeated} properties more than once\n{run.describe()}"


def quiet(run: Run) -> None:
    """No worker is left when the run is over."""
    wait_for(lambda: not run.fleet.workers(), 10)
