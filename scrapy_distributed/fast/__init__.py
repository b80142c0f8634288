"""Fast workers: the same crawl for less CPU.

preset: the add-on, and what it changes. http_handler: Scrapy's HTTP/1.1, and others' for what it does not do
(http_connection: one of them; http_answer: what comes over it). meta_refresh: looks before it parses.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # For ADDONS. Nothing is imported by itself: a coordinator wants the names of the preset alone.
    if name == "FastWorker":
        from scrapy_distributed.fast.preset import FastWorker

        return FastWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
