"""The smallest project that Scrapyd can run: two spiders that fetch nothing."""

from __future__ import annotations

from pathlib import Path

from scrapy_distributed.fleet.egg import build_egg

SPIDERS = """\
import scrapy
from scrapy import signals
from scrapy.exceptions import DontCloseSpider


class Quick(scrapy.Spider):
    name = "quick"
    custom_settings = {"TELNETCONSOLE_ENABLED": False}

    async def start(self):
        self.logger.info("lengths: %s", {key: len(str(value)) for key, value in vars(self).items()})
        self.logger.info("job: %s, mark: %s", self._job, self.settings.get("MARK"))
        return
        yield


class Waiting(scrapy.Spider):
    name = "waiting"
    custom_settings = {"TELNETCONSOLE_ENABLED": False}

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.wait, signals.spider_idle)
        return spider

    async def start(self):
        return
        yield

    def wait(self):
        raise DontCloseSpider
"""


def write_project(folder: Path) -> Path:
    """The project's folder, with its ``scrapy.cfg``."""
    package = folder / "tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text('BOT_NAME = "tiny"\nSPIDER_MODULES = ["tiny.spiders"]\n')
    (package / "spiders.py").write_text(SPIDERS)
    (folder / "scrapy.cfg").write_text("[settings]\ndefault = tiny.settings\n")
    return folder


def tiny_egg(folder: Path) -> bytes:
    return build_egg(write_project(folder), "tiny.settings")
