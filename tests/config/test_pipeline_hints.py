"""Which pipelines should run once, by their source: those of Scrapy's documentation, and others."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from scrapy.exceptions import DropItem

from scrapy_distributed.config.pipeline_hints import reason_for_home


class JsonWriterPipeline:
    def open_spider(self) -> None:
        self.file = open("items.jsonl", "w")  # noqa: SIM115

    def process_item(self, item: Any) -> Any:
        self.file.write(json.dumps(item) + "\n")
        return item


class DuplicatesPipeline:
    def __init__(self) -> None:
        self.ids_seen: set[int] = set()

    def process_item(self, item: Any) -> Any:
        if item["id"] in self.ids_seen:
            raise DropItem
        self.ids_seen.add(item["id"])
        return item


class Both:
    def __init__(self) -> None:
        self.by_shop = defaultdict(list)
        self.seen = {}
        self.file = Path("x").open(mode="ab")  # noqa: SIM115


class Reads:
    def open_spider(self) -> None:
        with open("prices.json") as file, Path("more").open("rb") as more:
            self.prices = json.load(file) + json.load(more)

    def process_item(self, item: Any) -> Any:
        found = {}
        return {**item, **found}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (JsonWriterPipeline, "writes a file"),
        (DuplicatesPipeline, "keeps what it has seen"),
        (Both, "keeps what it has seen and writes a file"),
        (Reads, ""),
        (type("Made", (), {}), ""),  # has no source
        (dict, ""),
    ],
)
def test_the_source_tells(kind: type, reason: str) -> None:
    assert set(reason_for_home(kind).split(" and ")) == set(reason.split(" and "))
