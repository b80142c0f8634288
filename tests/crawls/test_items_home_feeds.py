"""Items come home into feeds of every kind, and from spiders with whom something is wrong."""

from __future__ import annotations

import json
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl
from ftp_child import ftp_server
from homing import CONTENT, Case, Compared, Home, complaints, content, items
from shop import PRODUCTS

KINDS = "trial.home.kinds"
GZIP = "scrapy.extensions.postprocessing.GzipPlugin"
BATCH = 5  # items
CASES = {
    "classes": Case("several", {
        "shop.jl": {"format": "jl", "item_classes": [f"{KINDS}.ShopItem"]},
        "third.csv": {"format": "csv", "item_classes": [f"{KINDS}.Third"]},
        "two.jl": {"format": "jl", "item_classes": [f"{KINDS}.Second", f"{KINDS}.Priced"]},
        "second.json": {"format": "json", "item_classes": [f"{KINDS}.Second"], "indent": 2},
        "priced.xml": {
            "format": "xml", "item_classes": [f"{KINDS}.Priced"], "item_export_kwargs": {"root_element": "r"},
        },
        "all.jl": {"format": "jl", "encoding": "utf-8"},
        "none.jl": {"format": "jl", "item_classes": ["scrapy.http.Response"], "store_empty": False},
    }),
    "fields": Case("item_fields", {
        "some.csv": {"format": "csv", "fields": {"name": "Name", "price": "Price"}},
        "some.jl": {"format": "jl", "fields": ["price", "code"]},
        "latin.xml": {"format": "xml", "encoding": "ascii"},
    }, {"FEED_EXPORT_FIELDS": ["number"]}),
    "filter": Case("plain_dict", {"cheap.jl": {"format": "jl", "item_filter": "trial.home.parts.Cheap"}}),
    "gzip": Case("shared", {
        "out.jl.gz": {"format": "jl", "postprocessing": [GZIP], "gzip_compresslevel": 9},
        "out.csv.gz": {"format": "csv", "postprocessing": [GZIP]},
    }),
    "custom storage": Case("plain_dict", {"out.jl": {"format": "jl"}}, scheme="kept://"),
    "empty": Case("nothing", {
        "stored.jl": {"format": "jl", "store_empty": True},
        "not.jl": {"format": "jl", "store_empty": False},
        "stored.csv": {"format": "csv", "store_empty": True},
    }),
    "in batches": Case("here", {"part-%(batch_id)d.jl": {"format": "jl", "batch_item_count": BATCH}}),
    "piped": Case("piped"),
    "raising": Case("raising"),
    "locked": Case("locked", ["jl"]),
}  # fmt: skip
EQUAL = sorted(CASES.keys() - {"in batches"})


@pytest.mark.parametrize("name", EQUAL)
def test_the_files_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    assert local
    assert fleet == local, compared.crawl(name).log


def test_parts_of_a_feed(compared: Compared) -> None:
    """Which item is in which of them depends on their order."""
    crawl = compared.crawl("in batches")
    fleet, local = compared.files("in batches")
    assert {name: len(part) for name, part in fleet.items()} == {name: len(part) for name, part in local.items()}
    assert len(fleet) > 2
    assert sorted(chain(*fleet.values())) == sorted(chain(*local.values()))
    assert complaints(crawl) == []


def failed(home: Home, crawl: Crawl) -> list[str]:
    """Reason and page of each request of its run that has failed."""
    return sorted(f"{one['reason']}: {one['url'][len(home.shop.url) :]}" for one in crawl.run()["outcomes"])


def test_items_that_pipelines_of_workers_drop_or_fail(compared: Compared, home: Home) -> None:
    crawl = compared.crawl("piped")
    assert [item["number"] for item in items(crawl.folder / "out.jl") if not item["changed"]] == []
    assert failed(home, crawl) == ["item KeyError: /p/11", "item KeyError: /p/5"]
    assert crawl.balance() == {"diverted": PRODUCTS, "crawled": PRODUCTS - 2, "failed": 2}


def test_callbacks_that_fail(compared: Compared, home: Home) -> None:
    crawl = compared.crawl("raising")
    pages = sorted(f"callback ValueError: /p/{number}" for number in range(PRODUCTS) if number % 4 < 2)
    assert failed(home, crawl) == pages
    assert crawl.stat("distributed/workers/distributed/followed/failed/callback ValueError") == 3


def test_an_item_that_can_not_come_home_is_named(compared: Compared, home: Home) -> None:
    crawl = compared.crawl("locked")
    reason = f"item can't come home: part.lock {type(threading.Lock()).__name__}"
    assert failed(home, crawl) == [f"{reason}: /p/3", f"{reason}: /p/7"]
    assert crawl.balance() == {"diverted": PRODUCTS, "crawled": PRODUCTS - 2, "failed": 2}
    assert home.project.account(crawl)["failed"] == 2


# As they are asked for on the command line


def both(home: Home, folder: Path, spider: str, *options: str, **settings: Any) -> tuple[Crawl, Crawl]:
    """The same command for the fleet and for this machine alone, each in a folder of its own: {folder} in *options*."""
    crawls = []
    for name, own in (("fleet", {}), ("local", {"DISTRIBUTED_ENABLED": "False"})):
        (place := folder / name).mkdir(exist_ok=True)
        words = [option.replace("{folder}", str(place)) for option in options]
        told = {key: json.loads(json.dumps(one).replace("{folder}", str(place))) for key, one in settings.items()}
        crawls.append(home.crawl(spider, *words, folder=place, settings={**told, **own}))
    return crawls[0].wait(), crawls[1].wait()


def files(crawl: Crawl) -> dict[str, Any]:
    return {path.name: content(path) for path in sorted(crawl.folder.iterdir()) if path.suffix in CONTENT}


def test_several_files_on_the_command_line_and_feeds_in_the_settings(home: Home, tmp_path: Path) -> None:
    names = ("one.jl", "two.json", "three.csv", "four.xml")
    options = [word for name in names for word in ("-O", f"{{folder}}/{name}")]
    crawl, local = both(home, tmp_path, "item_fields", *options, FEEDS={"{folder}/settings.jl": {"format": "jl"}})
    assert files(crawl) == files(local)
    assert set(names) <= files(crawl).keys()
    assert complaints(crawl) == []


def test_the_screen(home: Home, compared: Compared, tmp_path: Path) -> None:
    crawl = home.crawl("plain_dict", "-o", "-:jl", folder=tmp_path).wait()
    shown = sorted(line.encode() for line in crawl.log.splitlines() if line.startswith('{"'))
    assert shown == compared.files("custom storage")[1]["out.jl.kept"]
    assert complaints(crawl) == []


def test_a_server_takes_the_file(home: Home, compared: Compared, tmp_path: Path) -> None:
    with ftp_server(tmp_path) as server:
        url = f"ftp://anonymous@127.0.0.1:{server.port}"
        crawl = home.crawl(
            "plain_dict", "-O", f"{url}/out.jl", "-O", f"{url}/out.csv", folder=tmp_path / "fleet"
        ).wait()
        assert server.landed() == ["out.csv", "out.jl"], crawl.log
    assert content(server.items / "out.jl") == compared.files("custom storage")[1]["out.jl.kept"]
    assert len(content(server.items / "out.csv")[1]) == PRODUCTS + 1  # the last is what is behind the last newline
    assert complaints(crawl) == []
