"""What tests of shared runs give on real processes, beside the crawl itself."""

from __future__ import annotations

from pathlib import Path

from crawling import Crawl, wait_for
from homing import Home
from valkey_child import ValkeyChild


def join(here: Home, queue: ValkeyChild, folder: Path, *options: str, at: str = "") -> Crawl:
    """A worker. *at*: the URL of what stands before the *queue*, if anything does."""
    folder.mkdir(exist_ok=True)
    return here.project.scrapy("worker", at or queue.url, *options, "--logs", str(folder / "jobs"), folder=folder)


def batches(here: Home, queue: ValkeyChild, folder: Path, *words: str) -> Crawl:
    where = ("-s", f"DISTRIBUTED_TARGET_HOSTS={queue.url}", "-s", f"DISTRIBUTED_LEDGER={folder / 'ledger.sqlite'}")
    return here.project.scrapy("batches", *words, *where, folder=folder).wait()


def said(crawl: Crawl, words: str) -> None:
    """Wait until its log has these *words*."""
    wait_for(lambda: words in crawl.log or crawl.process.poll() is not None)
    assert words in crawl.log, crawl.log
