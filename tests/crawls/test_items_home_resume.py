"""Items come home to a crawl that was cut off and taken up again: its files are as if nothing had happened."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project, wait_for
from homing import PATIENCE, Case, Home, complaints, content, items
from shop import PRODUCTS, Shop

from scrapy_distributed.ledger.reader import LedgerReader

OLDER = '{"older": 1}\n{"older": 2}\n'
HELD = ("/p/9", "/p/10", "/p/11")


@pytest.fixture
def home(home_project: Project, own_shop: Shop) -> Home:
    return Home(home_project, own_shop)


def states(crawl: Crawl) -> list[str]:
    """Of the attempts of its run so far."""
    if not crawl.ledger.exists():
        return []
    reader = LedgerReader(crawl.ledger)
    try:
        runs = reader.runs()
        return [str(batch.attempt_state) for batch in reader.batches(runs[-1].id)] if runs else []
    finally:
        reader.close()


def in_the_middle(home: Home, spider: str, *options: str, folder: Path, **settings: Any) -> Crawl:
    """A crawl that has one batch at home, and another that stays at the shop."""
    home.shop.hold(*HELD)
    crawl = home.crawl(spider, *options, folder=folder, settings=settings)
    wait_for(lambda: sorted(states(crawl)) == ["accepted", "sent"], 60)
    wait_for(lambda: home.shop.visits["/p/9"] and " of project home on 2 nodes" in crawl.log, 60)
    return crawl


def kill(crawl: Crawl) -> None:
    crawl.end()


def interrupt(crawl: Crawl) -> None:
    crawl.process.send_signal(signal.SIGINT)
    crawl.wait()
    assert "is not finished (shutdown)" in crawl.log
    assert crawl.process.returncode == 1


def outputs(option: str, folder: Path, *names: str) -> list[str]:
    """For files in *folder*: -O writes them anew, -o adds to them."""
    return [word for name in names for word in (option, str(folder / name))]


@pytest.fixture(scope="module")
def truth(home_project: Project, shop_child: Shop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What local crawls leave: spider -> file -> content. No item has the URL of its shop."""
    cases = {spider: Case(spider) for spider in ("plain_dict", "here", "shared", "back")}
    folder = tmp_path_factory.mktemp("truth")
    Home(home_project, shop_child).locally(cases, folder).wait(PATIENCE)
    return {name: {file: content(folder / name / file) for file in case.feeds} for name, case in cases.items()}


@pytest.mark.parametrize(("spider", "end"), [("here", kill), ("shared", kill), ("plain_dict", interrupt)])
def test_files_that_are_written_anew(
    home: Home, truth: dict[str, Any], tmp_path: Path, spider: str, end: Callable[[Crawl], None]
) -> None:
    names = list(truth[spider])
    options = outputs("-O", folder := tmp_path / "fleet", *names)
    first = in_the_middle(home, spider, *options, folder=folder)
    end(first)
    if end is interrupt:  # what was home by then is in the files
        assert sorted(item["number"] for item in items(folder / "out.jl")) == list(range(6))
    home.shop.release()
    again = home.crawl(spider, *options, folder=folder).wait()
    assert again.run()["name"] in first.log
    assert all(home.shop.visits[f"/p/{number}"] == 1 for number in range(6))
    assert again.balance() == {"diverted": PRODUCTS, "crawled": PRODUCTS}
    assert {name: content(folder / name) for name in names} == truth[spider], again.log
    assert complaints(again) == []


def test_files_that_are_added_to(home: Home, truth: dict[str, Any], tmp_path: Path) -> None:
    """What was in them before the run stays, what its earlier commands have added does not."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "out.jl").write_text(OLDER)
    options = outputs("-o", folder, "out.jl", "out.xml")
    for end in (interrupt, kill):
        end(in_the_middle(home, "here", *options, folder=folder))
    home.shop.release()
    again = home.crawl("here", *options, folder=folder).wait()
    text = (folder / "out.jl").read_text()
    assert text.startswith(OLDER)
    assert sorted(text.encode().splitlines()[2:]) == truth["here"]["out.jl"], again.log
    assert content(folder / "out.xml") == truth["here"]["out.xml"]
    assert complaints(again) == []


def test_a_walk_that_was_done_is_not_repeated_and_its_pages_are_known(
    home: Home, truth: dict[str, Any], tmp_path: Path
) -> None:
    """Its lists have brought their items, and products of the second command lead to them."""
    folder = tmp_path / "fleet"
    first = in_the_middle(home, "back", "-O", str(folder / "out.jl"), folder=folder)
    wait_for(lambda: first.run()["walked"])
    kill(first)
    asked = home.shop.visits["/list/0"]
    home.shop.release()
    again = home.crawl("back", "-O", str(folder / "out.jl"), folder=folder).wait()
    assert home.shop.visits["/list/0"] == asked
    assert content(folder / "out.jl") == truth["back"]["out.jl"], again.log


@pytest.mark.parametrize("lost", ["000001-1-*.jl", "own-1.jl"])
def test_items_that_are_lost_are_told_and_crawled_again_by_the_way_that_is_told(
    home: Home, truth: dict[str, Any], tmp_path: Path, lost: str
) -> None:
    options = outputs("-O", folder := tmp_path / "fleet", "out.jl")
    first = in_the_middle(home, "here", *options, folder=folder)
    wait_for(lambda: first.run()["walked"])
    kill(first)
    (path,) = (folder / "ledger.sqlite.items").glob(f"*/{lost}")
    path.unlink()
    home.shop.release()
    refused = home.crawl("here", *options, folder=folder).wait()
    assert refused.process.returncode == 1
    assert f"The crawl does not start: {path}: items that have come home are lost" in refused.log
    words = re.findall("let it be crawled again: scrapy (.*), then the same crawl command", refused.log)[0].split()
    assert home.project.scrapy(*words, folder=folder).wait().process.returncode == 0
    again = home.crawl("here", *options, folder=folder).wait()
    assert again.run()["name"] == first.run()["name"]
    assert again.balance()["crawled"] == PRODUCTS
    assert content(folder / "out.jl") == truth["here"]["out.jl"], again.log
    assert complaints(again) == []


def test_a_worker_is_killed(home: Home, tmp_path: Path) -> None:
    """It had yielded items of some of its pages."""
    mark = tmp_path / "mark"
    crawl = home.crawl("killed", "-a", f"mark={mark}", "-O", str(tmp_path / "out.jl"), folder=tmp_path / "fleet").wait()
    assert mark.exists()
    assert crawl.run()["balance"].settled
    assert crawl.stat("distributed/attempts/accepted") < crawl.stat("distributed/attempts")
    assert sorted(item["number"] for item in items(tmp_path / "out.jl")) == list(range(PRODUCTS))


# Feeds that can't be stored


class Place:
    """A folder for feeds, which is closed and opened; *settings* of crawls that write there."""

    settings: dict[str, Any] = {}
    scheme = ""

    def __init__(self, folder: Path) -> None:
        self.feeds = folder / "feeds"
        self.feeds.mkdir(parents=True)

    def shut(self) -> None:
        self.feeds.rmdir()
        self.feeds.write_text("no folder")

    def open(self) -> None:
        self.feeds.unlink()
        self.feeds.mkdir()


class FullPlace(Place):
    """Its disk is full."""

    settings = {"FEED_STORAGES": dict.fromkeys(["", "file"], "trial.storage.FullDisk")}

    def shut(self) -> None:
        (self.feeds.parent / "full").touch()

    def open(self) -> None:
        (self.feeds.parent / "full").unlink()


class LatePlace(Place):
    """Only in the end it is seen that it is closed."""

    scheme = "kept://"


@pytest.mark.parametrize("kind", [Place, FullPlace, LatePlace])
def test_what_could_not_be_stored_is_stored_without_crawling(
    home: Home, truth: dict[str, Any], tmp_path: Path, kind: type[Place]
) -> None:
    place = kind(tmp_path / "fleet")
    options = [word for name in ("out.jl", "out.csv") for word in ("-O", f"{place.scheme}{place.feeds}/{name}")]
    home.shop.hold("/p/")
    crawl = home.crawl("plain_dict", *options, folder=tmp_path / "fleet", settings=place.settings)
    wait_for(lambda: sorted(states(crawl)) == ["sent", "sent"], 60)
    place.shut()
    home.shop.release()
    crawl.wait()
    assert f"Run {crawl.run()['name']} is not finished: a feed lacks items that have come home" in crawl.log
    assert crawl.balance() == {"diverted": PRODUCTS, "crawled": PRODUCTS}
    place.open()
    asked = home.shop.requests
    again = home.crawl("plain_dict", *options, folder=tmp_path / "fleet", settings=place.settings).wait()
    assert home.shop.requests == asked, again.log
    assert complaints(again) == []
    for path in sorted(place.feeds.iterdir()):
        name = path.name.removesuffix(".kept")
        assert content(path.rename(path.with_name(name))) == truth["plain_dict"][name]
    assert {path.name for path in place.feeds.iterdir()} == {"out.jl", "out.csv"}
    home.project.account(again)


def test_a_place_that_is_closed_from_the_start(home: Home, tmp_path: Path) -> None:
    place = Place(tmp_path / "fleet")
    place.shut()
    crawl = home.crawl("here", "-O", f"{place.feeds}/out.jl", folder=tmp_path / "fleet").wait()
    assert "The crawl does not start: FEED_URI/FEEDS: the feed in" in crawl.log
    assert crawl.process.returncode == 1
    assert home.shop.requests == 0
