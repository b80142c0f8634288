"""Shared runs whose results are a stream in Redis: each item of a local crawl once, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, wait_for
from homing import PATIENCE, Home
from joined_crawls import batches, join, said
from shop import PRODUCTS
from streams import each_once, entries
from valkey_child import ValkeyChild


def start(
    here: Home, queue: ValkeyChild, folder: Path, spider: str = "plain_dict", *options: str, **settings: Any
) -> Crawl:
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "DISTRIBUTED_RESULTS": "redis", **settings}
    return here.crawl(spider, *options, folder=folder, settings=given)


def locally(here: Home, folder: Path, spider: str) -> list[bytes]:
    """The lines that a local crawl writes."""
    alone = here.crawl(
        spider, "-O", str(folder / "out.jl"), folder=folder, settings={"DISTRIBUTED_ENABLED": False}
    ).wait()
    assert alone.process.returncode == 0, alone.log
    return sorted((folder / "out.jl").read_bytes().splitlines())


@pytest.mark.parametrize(
    "spider",
    ["plain_dict", "item_fields", "nested", "values", "rules", "here", "back", "redirects", "groups", "nothing"],
)
def test_a_stream_has_what_a_local_crawl_writes(here: Home, queue: ValkeyChild, tmp_path: Path, spider: str) -> None:
    join(here, queue, tmp_path / "worker", "--slots", "2")
    crawl = start(here, queue, tmp_path, spider).wait()
    assert crawl.process.returncode == 0, crawl.log
    found = each_once(entries(queue))
    assert sorted(entry.item for entry in found) == locally(here, tmp_path / "alone", spider), crawl.log


def kill(crawl: Crawl) -> None:
    os.kill(crawl.process.pid, signal.SIGKILL)
    crawl.process.wait()


def products(queue: ValkeyChild) -> list[int]:
    """The numbers of the products in the stream, whose entries are there once."""
    return sorted(entry.fields["number"] for entry in each_once(entries(queue)))


ALL = list(range(PRODUCTS))


def test_it_is_said_where_items_go_and_check_counts_them(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker")
    crawl = start(here, queue, tmp_path).wait()
    assert crawl.process.returncode == 0, crawl.log
    found = entries(queue)
    assert {(entry.kind, entry.spider) for entry in found} == {("dict", "plain_dict")}
    assert all(entry.job.startswith(f"{entry.run}-0") for entry in found)
    run = found[0].run
    assert f"Items: each goes once into the stream {{sd:home}}:{run}:items in Redis" in crawl.log
    checked = batches(here, queue, tmp_path, "check")
    assert checked.process.returncode == 0, checked.log
    assert f"{PRODUCTS} items that count, {PRODUCTS} entries in {{sd:home}}:{run}:items" in checked.log
    kept = batches(here, queue, tmp_path, "export", "-O", "out.jl")
    assert kept.process.returncode == 2
    assert f"found items in the stream {{sd:home}}:{run}:items" in kept.log
    forgotten = batches(here, queue, tmp_path, "forget", run)
    assert f"where its stream had {PRODUCTS} entries" in forgotten.log
    assert not queue.ask("KEYS", f"*{run}*")


def test_what_a_reader_takes_out_or_puts_there_is_told(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker")
    start(here, queue, tmp_path).wait()
    key = f"{{sd:home}}:{entries(queue)[0].run}:items"
    assert queue.ask("XTRIM", key, "MAXLEN", "=", "3")
    checked = batches(here, queue, tmp_path, "check")
    assert f"{PRODUCTS - 3} entries taken out of it by others" in checked.log
    assert checked.process.returncode == 0
    for _ in range(PRODUCTS):
        assert queue.ask("XADD", key, "*", "item", "{}")
    checked = batches(here, queue, tmp_path, "check", "--json")
    assert json.loads(checked.log)["runs"][0]["results"]["there"] == PRODUCTS + 3
    assert checked.process.returncode == 1


def test_what_the_crawl_scrapes_itself_is_there_once_though_it_is_killed_and_repeats_it(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/list/1")
    crawl = start(here, queue, tmp_path, "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    wait_for(lambda: bool(queue.ask("KEYS", "*:staged:0.*")))
    kill(crawl)
    here.shop.release()
    join(here, queue, tmp_path / "worker")
    again = start(here, queue, tmp_path, "here").wait()
    assert again.process.returncode == 0, again.log
    found = sorted(entry.item for entry in each_once(entries(queue)))
    assert found == locally(here, tmp_path / "alone", "here")
    assert not queue.ask("KEYS", "*:staged:*")


def test_what_the_crawl_has_scraped_itself_is_there_where_a_later_command_ends_the_run(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    crawl = start(here, queue, tmp_path / "one", "here")
    run = said_run(crawl)
    wait_for(lambda: bool(queue.ask("HGET", f"{{sd:home}}:{run}", "walked")))
    os.kill(crawl.process.pid, signal.SIGINT)
    crawl.wait()
    assert entries(queue) == []
    visits = here.shop.visits["/list/0"]
    join(here, queue, tmp_path / "worker")
    again = start(here, queue, tmp_path / "two", "here").wait()
    assert again.process.returncode == 0, again.log
    assert here.shop.visits["/list/0"] == visits
    found = sorted(entry.item for entry in each_once(entries(queue)))
    assert found == locally(here, tmp_path / "alone", "here")


def said_run(crawl: Crawl) -> str:
    said(crawl, " of project home on ")
    (run,) = re.findall(r"Run (\S+) of project home on ", crawl.log)
    return str(run)


def test_an_heir_in_another_folder_takes_the_walk_over_when_its_owner_is_killed(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    """Each page of the site is asked for once by workers, and the walk is repeated."""
    here.shop.hold("/list/1")
    first = start(here, queue, tmp_path / "first", "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    wait_for(lambda: bool(queue.ask("KEYS", "*:staged:0.*")))
    second = start(here, queue, tmp_path / "second", "here")
    said(second, "takes over if that one dies")
    worker = join(here, queue, tmp_path / "worker", "--slots", "2")
    said(worker, "accepted (finished)")
    wait_for(lambda: bool(entries(queue)))
    kill(first)
    here.shop.release()
    second.wait(PATIENCE)
    assert second.process.returncode == 0, second.log
    assert here.shop.visits["/list/0"] == 2
    assert max(here.shop.visits[f"/p/{number}"] for number in ALL) == 1
    found = sorted(entry.item for entry in each_once(entries(queue)))
    assert found == locally(here, tmp_path / "alone", "here")
    checked = batches(here, queue, tmp_path, "check")
    assert checked.process.returncode == 0, checked.log


def test_an_owner_that_was_stopped_for_too_long_puts_nothing_there_any_more(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/list/1")
    first = start(here, queue, tmp_path / "first", "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    second = start(here, queue, tmp_path / "second", "here")
    said(second, "takes over if that one dies")
    os.kill(first.process.pid, signal.SIGSTOP)
    join(here, queue, tmp_path / "worker", "--slots", "2")
    wait_for(lambda: "taken up again" in second.log, PATIENCE)
    os.kill(first.process.pid, signal.SIGCONT)
    first.wait()
    here.shop.release()
    second.wait(PATIENCE)
    assert first.process.returncode == 1
    assert "Another coordinator has taken this crawl over" in first.log
    assert second.process.returncode == 0, second.log
    found = sorted(entry.item for entry in each_once(entries(queue)))
    assert found == locally(here, tmp_path / "alone", "here")


def test_a_server_and_a_worker_that_are_killed_leave_each_item_once(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/list/1", "/p/1")
    crawl = start(here, queue, tmp_path, "here", DISTRIBUTED_LEASE=2)
    first = join(here, queue, tmp_path / "first", "--slots", "2")
    wait_for(lambda: here.shop.visits["/p/1"])
    kill(first)
    queue.kill()
    said(crawl, "can't be used now")
    queue.start()
    join(here, queue, tmp_path / "second", "--slots", "2")
    here.shop.release()
    crawl.wait(PATIENCE)
    assert crawl.process.returncode == 0, crawl.log
    found = sorted(entry.item for entry in each_once(entries(queue)))
    assert found == locally(here, tmp_path / "alone", "here")


def test_a_full_server_gets_the_rest_when_it_has_room(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/p/1")
    crawl = start(here, queue, tmp_path)
    worker = join(here, queue, tmp_path / "worker")
    wait_for(lambda: here.shop.visits["/p/1"])
    assert queue.ask("CONFIG", "SET", "maxmemory", "1")
    here.shop.release()
    said(worker, "is full (maxmemory)")
    assert queue.ask("CONFIG", "SET", "maxmemory", "0")
    crawl.wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(queue) == ALL


def test_a_limit_of_pages_ends_the_walk_and_what_that_has_scraped_is_there(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    join(here, queue, tmp_path / "worker")
    crawl = start(here, queue, tmp_path, "here", "-s", "CLOSESPIDER_PAGECOUNT=1").wait()
    assert crawl.process.returncode == 0, crawl.log
    found = each_once(entries(queue))
    assert any(entry.batch == "0" for entry in found)
    assert any(entry.batch != "0" for entry in found)
    assert batches(here, queue, tmp_path, "check").process.returncode == 0


def test_a_limit_ends_the_run_and_what_the_crawl_itself_has_scraped_is_there_once_though_the_run_goes_on(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    worker = join(here, queue, tmp_path / "worker", "--slots", "1")
    crawl = start(here, queue, tmp_path, "here", "-s", "CLOSESPIDER_ITEMCOUNT=3").wait()
    assert "is over, it was stopped (closespider_itemcount)" in crawl.log, crawl.log
    assert crawl.process.returncode == 0, crawl.log
    checked = json.loads(batches(here, queue, tmp_path, "check", "--json").log)["runs"][0]["results"]
    assert checked["there"] == checked["put"] == checked["counted"] == len(each_once(entries(queue)))
    assert checked["there"] >= 3
    own = sorted(entry.item for entry in entries(queue) if entry.batch == "0")
    assert own
    kill(worker)  # it would go on with the limit
    said_of = batches(here, queue, tmp_path, "retry", "--state", "not crawled")
    assert "its own crawl begins anew" in said_of.log, said_of.log
    again = start(here, queue, tmp_path, "here")
    said(again, "taken up again")
    join(here, queue, tmp_path / "other", "--slots", "1")
    again.wait()
    assert again.process.returncode == 0, again.log
    found = each_once(entries(queue))
    assert len({entry.item for entry in found if entry.batch == "0"}) == sum(entry.batch == "0" for entry in found)
    assert {entry.item for entry in found} == set(locally(here, tmp_path / "alone", "here"))


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        (["-O", "out.jl"], {}, "found \"redis\", and a feed as well ('out.jl')"),
        ([], {"DISTRIBUTED_TARGET_HOSTS": "scrapyd2"}, 'found "redis", and nodes that are sent their batches'),
        ([], {"DISTRIBUTED_ITEMS": "home"}, 'found "redis", and DISTRIBUTED_ITEMS = "home"'),
    ],
)
def test_what_a_stream_can_not_be_is_refused_by_name(
    here: Home, queue: ValkeyChild, tmp_path: Path, options: list[str], settings: dict[str, Any], words: str
) -> None:
    crawl = start(here, queue, tmp_path, "plain_dict", *options, **settings).wait()
    assert crawl.process.returncode == 1
    assert f"DISTRIBUTED_RESULTS: {words}" in crawl.log, crawl.log
    assert not (tmp_path / "out.jl").exists()
