"""Crawls in a child process whose feeds are to be seen when they are whole."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crawling import wait_for
from listing import shown

CRAWL = """
import json
import sys

import scrapy
from scrapy.crawler import CrawlerProcess

url, options = sys.argv[1:]

class Items(scrapy.Spider):
    name = "items"

    async def start(self):
        for number in range(1000):
            yield {"number": number}
        print("done", flush=True)
        sys.stdin.read()

process = CrawlerProcess({
    "LOG_ENABLED": False,
    "TELNETCONSOLE_ENABLED": False,
    "FEEDS": {url: json.loads(options)},
    "FEED_STORAGES": dict.fromkeys(["", "file"], "scrapy_distributed.results.whole_file.WholeFileStorage"),
})
crawler = process.create_crawler(Items)
process.crawl(crawler)
process.start()
print({key: value for key, value in crawler.stats.get_stats().items() if key.startswith("feedexport/")})
"""


def crawl(url: str, **options: Any) -> subprocess.Popen[str]:
    """A crawl that has scraped 1,000 items and ends with its standard input."""
    args = [sys.executable, "-c", CRAWL, url, json.dumps({"format": "jsonlines", **options})]
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    return process


@pytest.mark.parametrize(
    ("scheme", "name", "options"),
    [
        ("file://", "%(name)s.jl", {}),
        ("file://", "items.jl.gz", {"postprocessing": ["scrapy.extensions.postprocessing.GzipPlugin"]}),
        ("", "%(name)s.jl", {}),
    ],
)
def test_scrapy_stores_its_feed_once(tmp_path: Path, scheme: str, name: str, options: dict[str, Any]) -> None:
    folder = tmp_path / "items"
    with crawl(f"{scheme}{folder}/{name}", **options) as process:
        wait_for(lambda: folder.exists() and list(folder.iterdir()))
        assert shown(folder) == []
        assert "'feedexport/success_count/WholeFileStorage': 1" in process.communicate()[0]
    (path,) = folder.iterdir()
    content = path.read_bytes()
    assert len((gzip.decompress(content) if options else content).splitlines()) == 1000
    with crawl(f"{scheme}{folder}/{name}", **options) as process:
        assert "'feedexport/failed_count/WholeFileStorage': 1" in process.communicate()[0]
    assert path.read_bytes() == content


def test_a_crawl_that_is_killed_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    with crawl(f"file://{tmp_path}/items/1.jl") as process:
        wait_for((tmp_path / "items").exists)
        process.kill()
        process.communicate()
    assert shown(tmp_path / "items") == []
