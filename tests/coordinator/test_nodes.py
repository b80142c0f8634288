"""What a fleet is made of, and what is refused of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from scrapy import Spider
from scrapy.settings import Settings
from twisted.internet.task import Clock

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.local_command import local_command
from scrapy_distributed.coordinator.nodes import Nodes
from scrapy_distributed.errors import ConfigError


@pytest.fixture
def spider_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Loads a module from a file of that name, with this code in it."""

    def load(name: str, code: str) -> ModuleType:
        path = tmp_path / f"{name.rpartition('.')[2]}.py"
        path.write_text(code)
        module = ModuleType(name)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, vars(module))
        return module

    return load


ONE = "import scrapy\nclass One(scrapy.Spider):\n    name = 'one'\n"
TWO = ONE + "class Two(scrapy.Spider):\n    name = 'two'\n"


def nodes(spider: Spider, **settings: object) -> Nodes:
    given = {f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()}
    settings = Settings(given)
    return Nodes.of_crawl(Config.from_settings(settings), settings=settings, spider=spider, clock=Clock())


def test_the_spider_of_a_file_is_run_by_its_file(
    spider_of_file: Callable[[str, str], ModuleType], tmp_path: Path
) -> None:
    module = spider_of_file("quotes_of_this_test", TWO)
    assert local_command(module.Two) == ("runspider", str(tmp_path / "quotes_of_this_test.py"))


@pytest.mark.parametrize(
    ("name", "of"), [("quotes_of_this_test", "One"), ("package.quotes", "Two"), ("__main__", "Two")]
)
def test_one_that_runspider_would_not_take_is_refused(
    spider_of_file: Callable[[str, str], ModuleType], name: str, of: str
) -> None:
    module = spider_of_file(name, TWO)
    with pytest.raises(ConfigError, match=f"the spider {name}.{of}, which they would not find"):
        local_command(getattr(module, of))


def test_one_that_was_made_by_hand_is_refused() -> None:
    with pytest.raises(ConfigError, match="which they would not find"):
        local_command(type("ByHand", (Spider,), {"name": "x", "__module__": "nowhere"}))


def test_they_are_told_in_words(spider_of_file: Callable[[str, str], ModuleType]) -> None:
    spider = spider_of_file("quotes_of_this_test", ONE).One()
    assert str(nodes(spider, target_hosts=["local:4"])) == "4 workers on this machine"
    assert str(nodes(spider, target_hosts=["local:1"])) == "a worker on this machine"
    assert str(nodes(spider, target_hosts=["a:1", "b:1"])) == "2 nodes"


def test_a_scrapyd_has_no_spider_of_a_file(spider_of_file: Callable[[str, str], ModuleType]) -> None:
    spider = spider_of_file("quotes_of_this_test", ONE).One()
    with pytest.raises(ConfigError, match="found a:1, and a spider that no project has"):
        nodes(spider, target_hosts=["local", "a:1"])


def test_workers_on_this_machine_are_waited_for(spider_of_file: Callable[[str, str], ModuleType]) -> None:
    spider = spider_of_file("quotes_of_this_test", ONE).One()
    with pytest.raises(ConfigError, match="DISTRIBUTED_WAIT: found False, and workers on this machine end with"):
        nodes(spider, target_hosts=["local"], wait=False)
