"""The pages of the manual: their links lead somewhere, their blocks run, what they name exists."""

from __future__ import annotations

import re
import shlex
import sqlite3
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import HtmlResponse
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from scrapy_distributed.commands.batches import ACTIONS
from scrapy_distributed.config.config import SETTINGS, Config
from scrapy_distributed.divert.diverter import check_targets

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [README, *(ROOT / "docs").glob("*.md")]}
MANY = PAGES["many-processes.md"]
NAMES = {setting.name for setting in SETTINGS}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", MANY, re.MULTILINE | re.DOTALL)


def made_by(block: str) -> dict[str, Any]:
    values: dict[str, Any] = {"__name__": "block"}
    exec(block, values)
    return values


def made(name: str) -> Any:
    """What a block of the page calls *name*."""
    return made_by(
        next(block for block in blocks("python") if re.search(rf"^(class|def) {name}\b", block, re.MULTILINE))
    )[name]


SPIDERS = re.findall(r"^class (\w+)\(scrapy\.Spider\)", MANY, re.MULTILINE)


def spider(name: str, **args: str) -> Spider:
    kind = made(name)
    crawler = get_crawler(kind)
    crawler.spider = kind.from_crawler(crawler, **args)
    return crawler.spider


def answer(request: Request, body: str) -> list[Any]:
    """What the callback of *request* makes of a page with *body*."""
    assert request.callback is not None
    return list(request.callback(HtmlResponse(request.url, body=body.encode(), request=request), **request.cb_kwargs))


# Links


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    folder = ROOT if name == README.name else ROOT / "docs"
    links = re.findall(r"\]\(([^)]+)\)", PAGES[name])
    for link in (link for link in links if not link.startswith(("http://", "https://"))):
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else folder / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_leads_to_each_page() -> None:
    assert [page for page in PAGES if page != README.name and f"](docs/{page}" not in PAGES[README.name]] == []


def test_each_subject_is_in_the_list_on_top() -> None:
    subjects = re.findall(r"^## (.+)$", MANY, re.MULTILINE)
    assert re.findall(r"^- \[(.+)\]\(#.+\)$", MANY, re.MULTILINE) == subjects


# What is named


def test_settings_and_commands_exist() -> None:
    assert set(re.findall(r"\bDISTRIBUTED_[A-Z_]+", MANY)) <= NAMES
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        scrapy, command, action, *_ = shlex.split(line)
        assert (scrapy, command, action in ACTIONS) == ("scrapy", "batches", True)


def test_stats_are_those_of_the_readme() -> None:
    named = set(re.findall(r"`(distributed/[^`]+)`", MANY)) - {"distributed/workers/sold_out"}
    assert named
    assert [name for name in named if f"| `{name}` |" not in PAGES[README.name]] == []


# Blocks


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[-1].strip())
def test_a_block_runs_and_its_settings_are_accepted(block: str) -> None:
    Config.from_settings(Settings({name: value for name, value in made_by(block).items() if name.isupper()}))


@pytest.mark.parametrize("name", SPIDERS)
def test_a_spider_can_be_a_workers(name: str) -> None:
    found = spider(name, batch="12", _job="job")
    assert (vars(found)["batch"], vars(found)["_job"]) == ("12", "job")
    check_targets(Config.from_settings(found.crawler.settings), found)


def test_what_the_coordinator_has_read_is_in_the_items_of_the_fleet() -> None:
    shop = spider("Shop")
    start = Request("https://shop.example.com/", shop.parse)
    (target,) = answer(start, '<html data-currency="EUR"><a class="item" href="/1">1</a>')
    (item,) = answer(target, '<p class="price">3</p><p class="sold-out">none</p>')
    assert item == {"url": "https://shop.example.com/1", "price": "3", "currency": "EUR"}
    assert shop.crawler.stats is not None
    assert shop.crawler.stats.get_value("sold_out") == 1


def test_an_item_of_two_pages_is_handed_on() -> None:
    chain = spider("Chain")
    (target,) = answer(Request("https://shop.example.com/", chain.parse), '<a class="item" href="/1">1</a>')
    (more,) = answer(target, '<p class="price">3</p><a class="reviews" href="/1/reviews">all</a>')
    (item,) = answer(more, '<p class="review">good</p>')
    assert item == {"url": "https://shop.example.com/1", "price": "3", "reviews": ["good"]}


def test_all_is_done_is_told_by_the_coordinator_alone(caplog: pytest.LogCaptureFixture) -> None:
    of_job: Any = spider("Telling", batch="12")
    of_coordinator: Any = spider("Telling")
    with caplog.at_level("INFO", "telling"):
        of_job.tell("finished")
        of_coordinator.tell("finished")
    assert [record.getMessage() for record in caplog.records if record.name == "telling"] == ["All is done: finished"]


def test_an_item_that_comes_twice_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for price in ("3", "4"):
        prices = made("Prices")()
        prices.open_spider()
        assert prices.process_item({"url": "u", "price": price}) == {"url": "u", "price": price}
        prices.close_spider()
    database = sqlite3.connect("prices.sqlite")
    assert database.execute("SELECT * FROM price").fetchall() == [("u", "4")]
    database.close()


def test_a_file_of_the_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop" / "data").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "data" / "categories.json").write_text('["tea"]')
    spec = spec_from_file_location("shop", tmp_path / "shop" / "__init__.py")
    assert spec is not None
    monkeypatch.setitem(sys.modules, "shop", module_from_spec(spec))  # other tests have another one
    assert made("categories")() == ["tea"]
