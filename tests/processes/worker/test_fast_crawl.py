"""A real crawl of a fast worker comes to the same as one of any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scrapy import Spider
from worker_crawl import MODES, Running, Site, outcome_of, requests_of

from scrapy_distributed.fast import preset as fast

PRESET = {
    "ADDONS": json.dumps({"scrapy_distributed.Addon": 500, fast.ADDON: fast.LAST}),
    "ASYNCIO_EVENT_LOOP": fast.EVENT_LOOP,
}
# Times and memory; the length of all requests, as of two for one page either may be the first, one of which has a
# Referer; and some lines of the log: the preset says what it does, Twisted's client and the remote control say nothing
# any more.
DIFFERENT = (
    "elapsed", "_seconds", "per_minute", "memusage/", "downloader/request_bytes", "log_count/INFO", "log_count/DEBUG",
)  # fmt: skip


def stats_of(stats: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in stats.items() if not any(part in name for part in DIFFERENT)}


@MODES
def test_a_crawl_comes_to_the_same(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    crawls, stats = {}, {}
    for name, settings in {"plain": {}, "fast": PRESET}.items():
        folder = tmp_path / name
        folder.mkdir()
        site.asked.clear()
        crawl = Running(folder, site, requests_of(site), **{**settings, **mode}).end()
        assert crawl.receipt is not None, crawl.said + crawl.log
        items = sorted(json.dumps(item).replace(crawl_port(item), "") for item in crawl.items)
        crawls[name] = (
            outcome_of(crawl.receipt), crawl.receipt.again, crawl.receipt.finish_reason, items, sorted(site.asked),
        )  # fmt: skip
        stats[name] = stats_of(dict(crawl.receipt.stats)).items()
    assert crawls["fast"] == crawls["plain"]
    assert stats["fast"] ^ stats["plain"] == set()
    assert "Fast worker, changed: items of a page one by one; " in crawl.log
    assert ("; lean download handler;" in crawl.log) == (not mode)


def crawl_port(item: dict[str, Any]) -> str:
    """The port of the closed server, which is another one in each crawl."""
    return item.get("failed", "").removeprefix("http://127.0.0.1:").partition("/")[0] or "no port"


class KeepingFile(Spider):
    """Leaves a file open that is part of a cycle."""

    name = "keeping"

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.file = open(path, "w")  # noqa: SIM115
        self.file.spider = self  # type: ignore[attr-defined]
        self.file.write("written")


def test_what_was_opened_before_the_crawl_is_written_at_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "scrapy", "runspider", __file__, "-a", f"path={tmp_path}/file"]
    command += ["-s", f'ADDONS={{"{fast.ADDON}": 1}}', "-s", "LOG_FILE=log"]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "Fast worker, changed" in (tmp_path / "log").read_text()
    assert (tmp_path / "file").read_text() == "written"
