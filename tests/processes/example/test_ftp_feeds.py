"""The example's FTP server, with Scrapy's feed storage as its client."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from ftp_child import FtpChild

CRAWL = """
import json
import sys

import scrapy
from scrapy.crawler import CrawlerProcess

class Items(scrapy.Spider):
    name = "items"

    async def start(self):
        for number in range(1000):
            yield {"number": number}

url, options = sys.argv[1:]
process = CrawlerProcess({"LOG_LEVEL": "INFO", "TELNETCONSOLE_ENABLED": False, "FEEDS": {url: json.loads(options)}})
crawler = process.create_crawler(Items)
process.crawl(crawler)
process.start()
print({key: value for key, value in crawler.stats.get_stats().items() if key.startswith("feedexport/")})
"""


def crawl(url: str, **options: object) -> str:
    """The stats of the feed of a crawl with 1,000 items."""
    args = [sys.executable, "-c", CRAWL, url, json.dumps({"format": "jsonlines", **options})]
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("name", "user", "options"),
    [
        ("%(name)s_%(time)s.jl", "", {}),
        ("%(name)s.jl", "anonymous@", {"overwrite": False}),
        ("%(name)s.jl.gz", "anonymous:x@", {"postprocessing": ["scrapy.extensions.postprocessing.GzipPlugin"]}),
    ],
)
def test_scrapy_stores_its_feed_once(landing: FtpChild, name: str, user: str, options: dict[str, object]) -> None:
    url = f"{landing.url.replace('//', f'//{user}')}/{name}"
    assert "'feedexport/success_count/FTPFeedStorage': 1" in crawl(url, **options)
    (path,) = landing.items.iterdir()
    content = path.read_bytes()
    lines = (gzip.decompress(content) if options.get("postprocessing") else content).splitlines()
    assert len(lines) == 1000
    if "time" not in name:
        assert "'feedexport/failed_count/FTPFeedStorage': 1" in crawl(url, **options)
        assert path.read_bytes() == content


def test_scrapy_is_told_that_there_are_no_folders(landing: FtpChild) -> None:
    assert "'feedexport/failed_count/FTPFeedStorage': 1" in crawl(f"{landing.url}/a/b.jl")
    assert landing.landed() == []
    assert "refused the folder '/a': there are none here" in landing.log
