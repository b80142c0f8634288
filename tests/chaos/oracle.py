"""The one oracle of all chaos tests: the items of a local crawl, none missing, none twice, and a balance that holds."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from typing import Any

from arena import INDEX_LINKS, OLDER, Run, processes, wait_for
from local import canonical, local_items, read
from market import make_property

from scrapy_distributed.ledger.reader import LedgerReader

SITE_REASONS = {"timeout", "connection lost"}  # of what a site does to a crawl that stands still
SHARDS = 20  # start pages of the example's spider, at most
OWN_KIND = "list"  # of the items that the spiders' pages on the coordinator have
FIELDS = ("title", "price", "description", "address")


def prove(run: Run, *, stood_still: bool = False, seconds: float = 60) -> None:
    """The run is over by itself, or is brought there by the same command. *stood_still*: the site has, so something may
    be missing, and all of that must have been told."""
    run.finish(seconds)
    try:
        named = _balance(run, stood_still=stood_still)
        found = _at_home(run) if run.home else read(run.fleet.project.merge(run.crawl, run.feeds))
        _items(run, canonical(found, run.site), named)
        if run.spider == "distr":
            _as_the_site_has_them(run, found)
        _leftovers(run)
        if run.home:
            _spool(run)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{run.describe()}") from None


def _at_home(run: Run) -> list[dict[str, Any]]:
    """The items in the coordinator's own file, behind what was there before."""
    before, text = OLDER if run.home == "-o" else "", run.output.read_text()
    assert text.startswith(before), f"the lines that were there before are not: {text[:200]!r}"
    assert text.endswith("\n"), f"its last line is cut off: {text[-200:]!r}"
    return [json.loads(line) for line in text[len(before) :].splitlines()]


def _spool(run: Run) -> None:
    """Nothing is there but what counts, all of which is; and what was cut off a file to append to."""
    with closing(LedgerReader(run.crawl.ledger)) as reader:
        counts = set(reader.spooled(reader.runs()[-1].id))
    found = {path.name for path in run.spool.iterdir()}
    strange = {name for name in found - counts if not name.startswith("own-") and not name.endswith(".cut")}
    assert not strange, f"left in the spool: {strange}"
    assert counts <= found, f"not in the spool: {counts - found}"


def _balance(run: Run, *, stood_still: bool) -> Named:
    ended = run.crawl.process.returncode
    assert ended in (0, -signal.SIGKILL, -signal.SIGHUP), f"the coordinator ended with {ended}"
    assert ended or run.crawl.stat("distributed/difference") == 0
    account = run.fleet.project.account(run.crawl)
    balance = run.crawl.balance()
    named = Named(run, diverted=balance["diverted"], losses=account.get("losses") or {})
    failed = len(named.failed)
    # A walk that is done again finds everything again.
    counts = Counter({state: count for state, count in balance.items() if state not in ("diverted", "duplicates")})
    assert counts == Counter(crawled=named.diverted - failed, failed=failed), f"{balance}"
    assert stood_still or (named.nothing and named.diverted == run.properties), f"{balance}, {named}"
    return named


class Named:
    """What the run itself says that it has lost: *failed* requests, by the numbers of their properties, and how many
    that were *followed* on workers, or were the coordinator's *own*."""

    def __init__(self, run: Run, *, diverted: int, losses: Mapping[str, Any]) -> None:
        self.diverted = diverted
        self.failed = {_number(outcome["url"]): outcome["reason"] for outcome in run.crawl.run()["outcomes"]}
        self.followed: dict[str, int] = losses.get("followed", {})
        self.own: dict[str, int] = losses.get("own", {})
        others = {name: losses[name] for name in ("unexported", "twice") if losses.get(name)}
        assert not others, f"no storm does that: {others}"
        reasons = {*self.failed.values(), *self.followed, *self.own}
        assert reasons <= SITE_REASONS, f"the site has not done that: {reasons - SITE_REASONS}"

    def __repr__(self) -> str:
        return f"failed {self.failed}, followed {self.followed}, own {self.own}"

    @property
    def nothing(self) -> bool:
        return not (self.failed or self.followed or self.own)


def _items(run: Run, found: Counter[str], named: Named) -> None:
    """The feeds that count have what a local crawl gives, but for what has been named, and for what the coordinator
    crawls itself."""
    args = tuple(sorted(run.args.items()))
    expected = local_items(run.fleet.project, run.spider, args, run.properties)
    own = Counter({item: count for item, count in expected.items() if json.loads(item).get("kind") == OWN_KIND})
    missing, too_many = expected - own - found, sorted((found - expected).elements())
    counts = f"{missing.total()} of {expected.total()} items of a local crawl missing, {len(too_many)} too many"
    counts = f"{counts} (named: {named}); missing {sorted(missing)[:3]}, too many {too_many[:3]}"
    assert not too_many, counts
    # Of each property the page itself has a plain URL, and those that it leads to have a query.
    unfailed = [url for item in missing.elements() if _number(url := json.loads(item)["url"]) not in named.failed]
    never_found = {_number(url) for url in unfailed if "?" not in url}
    followed = [url for url in unfailed if _number(url) not in never_found]
    assert len(followed) == sum(named.followed.values()), f"followed: {len(followed)}; {counts}"
    assert len(never_found) == run.properties - named.diverted, f"never found: {len(never_found)}; {counts}"
    lost_pages, failures = _lost_pages(run, never_found)
    # Of several coordinators one may have lost what another had found.
    told = sum(named.own.values())
    assert failures == told or (failures < told and len(run.crawls) > 1), f"{failures} of the walk failed; {counts}"
    if run.home:  # the walk that counts, and no other, has left its items there
        assert not own - found, f"own items: {own - found} missing"
    else:
        _own_items(run, own, lost_pages)


def _number(url: str) -> int:
    """Of the property, or the index page, that *url* is of."""
    found = re.search(r"_(\d+)\.html", url)
    assert found is not None, url
    return int(found[1])


def _lost_pages(run: Run, never_found: Set[int]) -> tuple[set[int], int]:
    """The index pages that led to these properties and were not read; and how many requests have failed for that: where
    one page leads to the next, all behind it are lost with it."""
    pages = {number // INDEX_LINKS for number in never_found}
    assert len(never_found) == sum(min(INDEX_LINKS, run.properties - page * INDEX_LINKS) for page in pages)
    count = -(-run.properties // INDEX_LINKS)
    starts = range(0, count, -(-count // SHARDS)) if run.spider == "distr" else range(1)
    ends = [*starts[1:], count]
    failures = [page for page in pages if page - 1 not in pages or page in starts]
    behind = {page for first in failures for page in range(first, next(end for end in ends if end > first))}
    assert pages == behind, f"index pages {sorted(behind - pages)} were read, and what leads to them was not"
    return pages, len(failures)


def _own_items(run: Run, expected: Counter[str], lost_pages: Set[int]) -> None:
    """Items of pages that the coordinator crawls are in feeds of its own. One that is begun again walks again, and one
    that is killed keeps what is in its buffers, so of several coordinators only the kind of their items is sure."""
    found = canonical((item for path in run.own_feeds for item in read(path)), run.site)
    strange = sorted(found.keys() - expected.keys())
    assert not strange, f"the coordinator has items that are not its own: {strange[:5]}"
    if len(run.crawls) == 1:
        wanted = Counter({item: 1 for item in expected if _number(json.loads(item)["url"]) not in lost_pages})
        assert found == wanted, f"own items: {wanted - found} missing, {found - wanted} too many"


def _as_the_site_has_them(run: Run, found: Sequence[dict[str, Any]]) -> None:
    """Where a local crawl could be as wrong as we are."""
    truth = {url: make_property(number) for number, url in enumerate(run.site.property_urls(range(run.properties)))}
    wrong = [item for item in found if not _is_right(item, truth[item["url"]])]
    assert not wrong, f"{len(wrong)} items are not what the site has: {wrong[:3]}"


def _is_right(item: dict[str, Any], expected: Any) -> bool:
    return all(item[field] == getattr(expected, field) for field in FIELDS)


def _leftovers(run: Run) -> None:
    # SQLite leaves the last two where the last who looked was a reader, as the commands are.
    places = (".local", ".local.folder", ".local.wall")
    usual = {f"ledger.sqlite{end}" for end in ("", ".lock", ".board", "-shm", "-wal", ".items", *places)}
    beside = [path for path in run.folder.glob("ledger.sqlite*") if path.name not in usual]
    unclosed = [path for path in run.folder.glob("*-wal") if path.stat().st_size]
    of_jobs = run.folder.glob("ledger.sqlite.local/*.receipts/*")
    of_jobs = [path for path in of_jobs if path.name.partition(".")[0] not in run.orphans]  # the next run removes that
    if not run.crawl.process.returncode:  # one that was killed when all was over had no time to tidy up
        assert not beside + unclosed, f"left beside the ledger: {beside + unclosed}"
        assert not of_jobs, f"left of jobs on this machine: {of_jobs}"
    left = processes(run.crawl.process.pid)  # its process group: it was started in a session of its own
    assert not left, f"processes of the coordinator are left: {left}"
    wait_for(lambda: not run.here(), 10)  # those of a coordinator that was killed have a last page, and a receipt
    if not run.fleet.nodes:
        assert not list(run.fleet.temp.iterdir()), "left in the folder for temporary files"


def no_repetition(run: Run) -> None:
    """After a run in which no work had to be done twice. A job that was taken back before it ran is no work."""
    with closing(LedgerReader(run.crawl.ledger)) as reader:
        last = reader.runs()[-1]
        jobs = {batch.number: reader.attempts(last, batch.number) for batch in reader.batches(last.id)}
    again = {number: ran for number, tried in jobs.items()
             if len(ran := [attempt for attempt in tried if attempt.state != "unsent"]) != 1}  # fmt: skip
    assert not again, f"more than one attempt: {again}\n{run.describe()}"
    nothing_fetched_twice(run)


def nothing_fetched_twice(run: Run) -> None:
    repeated = run.site.stats()["properties_repeated"]
    assert repeated == 0, f"the site was asked for {repeated} properties more than once\n{run.describe()}"


def quiet(run: Run) -> None:
    """No worker is left when the run is over."""
    wait_for(lambda: not run.fleet.workers(), 10)
