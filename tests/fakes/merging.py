"""Feeds as Scrapy writes them, the attempts that they are of, and what merging them found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from scrapy.exporters import BaseItemExporter

from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.merge import Merged
from scrapy_distributed.wire.receipt import FeedFile


@pytest.fixture
def items(tmp_path: Path) -> Path:
    folder = tmp_path / "items"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def attempts(*feeds: tuple[str, int]) -> list[AcceptedAttempt]:
    """One attempt for each of *feeds*, as URL and items."""
    return [
        AcceptedAttempt(batch=number, number=1, items=count, feeds=(FeedFile(url, count),))
        for number, (url, count) in enumerate(feeds, 1)
    ]


def kinds(merged: Merged) -> list[str]:
    return [fault.kind.value for fault in merged.faults]


def export(path: Path, exporter: type[BaseItemExporter], items: Sequence[dict[str, object]]) -> None:
    """A feed as Scrapy writes it."""
    with path.open("wb") as file:
        writer = exporter(file, indent=0, encoding="utf-8")  # type: ignore[call-arg]
        writer.start_exporting()
        for item in items:
            writer.export_item(item)
        writer.finish_exporting()


ITEMS = [{"url": f"http://a/{number}", "text": 'a "quoted"\nline, and ü'} for number in range(4)]
