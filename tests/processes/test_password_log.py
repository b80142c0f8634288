"""What a job logs has no password of its feed's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CRAWL = """
import sys

import scrapy
from scrapy.crawler import CrawlerProcess

class Closed:
    def __init__(self, uri, *, feed_options=None):
        self.uri = uri

    def open(self, spider):
        raise OSError(f"can't open {self.uri}")

class Items(scrapy.Spider):
    name = "items"

    async def start(self):
        yield {"a": 1}

process = CrawlerProcess({
    "ADDONS": {"scrapy_distributed.Addon": 500},
    "DISTRIBUTED_ENABLED": False,
    "FEEDS": {sys.argv[1]: {"format": "jl"}},
    "FEED_STORAGES": {"closed": Closed},
    "LOG_FILE": sys.argv[2],
    "TELNETCONSOLE_ENABLED": False,
})
process.crawl(Items)
process.start()
"""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("closed://u:s3cret@h/1.jl", "can't open closed://u@h/1.jl"),  # by scrapy.utils.signal and asyncio
        ("ftp://u:s3cret@/1.jl", "a storage URI without a hostname: ftp://u@/1.jl"),  # by twisted
        ("ftp://u:s3cret/x@h/1.jl", "cast to integer value as (hidden)"),
    ],
)
def test_errors_of_a_storage_are_logged_without_its_password(url: str, shown: str, tmp_path: Path) -> None:
    """In the job's log: Twisted writes its own to stderr as well, so into Scrapyd's, which has the URL in any case."""
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", CRAWL, url, path], capture_output=True, timeout=60, check=False)
    log = path.read_text()
    assert shown in log
    assert "s3cret" not in log
