"""What is told of the first error of a kind."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scrapy_distributed.wire.receipt import MAX_EXAMPLE
from scrapy_distributed.worker.example import example_of

SPIDER = """\
import json
from shop import prices

def parse(text):
    return prices.price_of(text)

def decode(text):
    return json.loads(text)
"""
PRICES = """\
def price_of(text):
    raise ValueError(text)
"""


@pytest.fixture
def spider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``shop.spiders.a`` of a project somewhere."""
    folder = tmp_path / "1764380000.egg" / "shop"
    (folder / "spiders").mkdir(parents=True)
    for name, text in {"__init__": "", "prices": PRICES, "spiders/__init__": "", "spiders/a": SPIDER}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder.parent)
    for name in ("shop", "shop.prices", "shop.spiders", "shop.spiders.a"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    from importlib import import_module

    return import_module("shop.spiders.a")


def example(call: Any, *values: Any, module: str = "shop.spiders.a") -> str:
    try:
        call(*values)
    except Exception as error:
        return example_of(error, module)
    raise AssertionError("nothing was raised")


def test_it_names_message_and_place_in_the_project(spider: ModuleType) -> None:
    assert example(spider.parse, "no price on page") == "no price on page (shop/prices.py:2)"


def test_what_a_library_raises_is_placed_where_the_project_called_it(spider: ModuleType) -> None:
    said = example(spider.decode, "{")
    assert said.endswith("(shop/spiders/a.py:8)")
    assert said.startswith("Expecting property name")


def test_what_the_project_had_no_part_in_is_placed_where_it_was_raised() -> None:
    said = example(json.loads, "{")
    assert "(json/decoder.py:" in said


def test_a_package_itself(spider: ModuleType, tmp_path: Path) -> None:
    code = compile("raise KeyError('x')", str(tmp_path / "shop" / "__init__.py"), "exec")
    assert example(exec, code, {"__name__": "shop"}) == "'x' (shop/__init__.py:1)"


def test_it_is_one_short_line_without_passwords(spider: ModuleType) -> None:
    said = example(spider.parse, "ftp://u:s3cret@h/x\nfailed\t\x1b[2J " + "x" * 100_000)
    assert said.startswith("ftp://u@h/x failed ?[2J xxx")
    assert said.endswith("... (shop/prices.py:2)")
    assert len(said) <= MAX_EXAMPLE
    assert said.isprintable()


def test_an_error_that_can_not_be_told(spider: ModuleType) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert example_of(MuteError(), "shop") == ""
    assert example(spider.parse, "") == "(shop/prices.py:2)"
    assert example_of(ValueError("not raised"), "shop") == "not raised"
