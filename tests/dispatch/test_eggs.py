"""What is said of the code that jobs run."""

from __future__ import annotations

import pytest
from scrapy import Spider

from scrapy_distributed.dispatch.eggs import MOST_TOLD, Eggs
from scrapy_distributed.wire.code import Egg


@pytest.fixture
def eggs() -> Eggs:
    return Eggs(Spider(name="s"))


def test_a_node_that_makes_up_versions_does_not_flood_the_log(eggs: Eggs, caplog: pytest.LogCaptureFixture) -> None:
    eggs.code = "0" * 16
    for number in range(1_000):
        eggs.compare("n0", Egg(f"r{number}", "1" * 16))
    assert len(caplog.records) == MOST_TOLD


def test_where_the_code_here_is_not_known_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SCRAPY_SETTINGS_MODULE", raising=False)  # a crawl of no project
    eggs = Eggs(Spider(name="s"))
    assert eggs.code == ""
    eggs.compare("n0", Egg("r1", "1" * 16))
    eggs.compare("n0", None)
    assert caplog.records == []
