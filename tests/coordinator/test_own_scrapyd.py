"""A coordinator that is a job of a Scrapyd itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider
from scrapy.settings import Settings
from twisted.internet.task import Clock

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator import nodes as nodes_module
from scrapy_distributed.coordinator.identity import ledger_of
from scrapy_distributed.coordinator.nodes import Nodes
from scrapy_distributed.coordinator.own_scrapyd import warn_of_names
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import Target

WORDS = "this crawl is a job of a Scrapyd, and the egg of a project has no scrapy.cfg"
CFG = {"scrapyd1": Target(name="scrapyd1", url="http://scrapyd1:6800", project="named")}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Scrapyd makes it, and as a shell may have it: Scrapy reads there which settings of scrapy.cfg it takes."""
    monkeypatch.setenv("SCRAPY_PROJECT", "shop")
    monkeypatch.setattr(nodes_module, "targets_from_cfg", dict)


def nodes(*hosts: str, job: str | None = "7", **given: Any) -> Nodes:
    settings = Settings({"BOT_NAME": "bot", "DISTRIBUTED_TARGET_HOSTS": list(hosts), **given})
    spider = Spider(name="s", **({"_job": job} if job else {}))
    return Nodes.of_crawl(Config.from_settings(settings), settings=settings, spider=spider, clock=Clock())


def test_its_project_is_the_one_that_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nodes("h:1").project == "shop"
    assert nodes("h:1", job=None).project == "bot"
    assert nodes("h:1", DISTRIBUTED_PROJECT="other").project == "other"
    monkeypatch.setattr(nodes_module, "targets_from_cfg", lambda: CFG)
    assert nodes("h:1").project == "shop"
    assert nodes("h:1", job=None).project == "named"


def test_what_its_scrapy_cfg_would_say_is_not_there(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes("h.example", "h:1", "[::1]")
    warn_of_names(["local"], Spider(name="s", _job="7"), targets=())
    assert WORDS not in caplog.text
    nodes("scrapyd1", "h:1")
    assert f"DISTRIBUTED_TARGET_HOSTS: found scrapyd1: {WORDS}" in caplog.text
    with pytest.raises(ConfigError, match=f"'scrapyd\\*' matches none of the targets .*\n  {WORDS}"):
        nodes("scrapyd*")
    with pytest.raises(ConfigError) as caught:
        nodes("scrapyd*", job=None)
    assert WORDS not in str(caught.value)
    caplog.clear()
    monkeypatch.setattr(nodes_module, "targets_from_cfg", lambda: CFG)
    nodes("scrapyd1")
    assert WORDS not in caplog.text


def test_its_ledger_is_below_the_folder_of_its_scrapyd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRAPY_SETTINGS_MODULE", "trial.settings")  # of its egg
    monkeypatch.setattr("scrapy.utils.project.closest_scrapy_cfg", str)
    assert ledger_of("s") == tmp_path / ".scrapy" / "distributed" / "s.sqlite"
