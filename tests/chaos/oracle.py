"""The one oracle of all chaos tests: the items of a local crawl, none missing, none twice, and a balance that holds."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from arena import Run, processes, wait_for
from local import canonical, local_items, read
from site_server import make_property

from scrapy_distributed.ledger_reader import LedgerReader

OWN_KIND = "list"  # of the items that the spiders' pages on the coordinator have
FIELDS = ("title", "price", "description", "address")


def prove(run: Run, *, seconds: float = 60) -> None:
    """The run is over by itself, or is brought there by the same command."""
    run.finish(seconds)
    try:
        _balance(run)
        _items(run)
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


def _items(run: Run) -> None:
    """The feeds that count have what a local crawl gives, but for what the coordinator crawls itself."""
    found = read(run.fleet.project.merge(run.crawl, run.feeds))
    args = tuple(sorted(run.args.items()))
    expected = local_items(run.fleet.project, run.spider, args, run.properties)
    own = Counter({item: count for item, count in expected.items() if json.loads(item).get("kind") == OWN_KIND})
    _same(canonical(found, run.site), expected - own)
    _own_items(run, own)
    if run.spider == "distr":
        _as_the_site_has_them(run, found)


def _same(found: Counter[str], expected: Counter[str]) -> None:
    missing, too_many = sorted((expected - found).elements()), sorted((found - expected).elements())
    counts = f"{len(missing)} of {expected.total()} items of a local crawl missing, {len(too_many)} too many"
    assert not missing + too_many, f"{counts}; missing {missing[:5]}, too many {too_many[:5]}"


def _own_items(run: Run, expected: Counter[str]) -> None:
    """Items of pages that the coordinator crawls are in feeds of its own. One that is begun again walks again, and one
    that is killed keeps what is in its buffers, so of several coordinators only the kind of their items is sure."""
    found = canonical((item for path in run.own_feeds for item in read(path)), run.site)
    if len(run.crawls) == 1:
        _same(found, expected)
    strange = sorted(found.keys() - expected.keys())
    assert not strange, f"the coordinator has items that are not its own: {strange[:5]}"


def _as_the_site_has_them(run: Run, found: Sequence[dict[str, Any]]) -> None:
    """Where a local crawl could be as wrong as we are."""
    truth = {url: make_property(number) for number, url in enumerate(run.site.property_urls(range(run.properties)))}
    assert sorted(item["url"] for item in found) == sorted(truth)
    wrong = [item for item in found if not _is_right(item, truth[item["url"]])]
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
