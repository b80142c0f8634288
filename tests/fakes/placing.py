"""A feed's place, tried before the crawl."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from scrapy_distributed.feeds.place import Trial, try_place

BOTH = pytest.mark.parametrize("thorough", [True, False])


def tried(storage: Any, name: str = "probe-job", *, thorough: bool = False, temporary: Path | None = None) -> Trial:
    spider = cast("Any", SimpleNamespace(crawler=SimpleNamespace(settings={"FEED_TEMPDIR": temporary})))
    return try_place(storage, name, options={"overwrite": False}, spider=spider, thorough=thorough)
