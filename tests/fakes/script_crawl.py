"""A crawl of the project in the current folder, as a script starts it.

    python script_crawl.py PROCESS SPIDER ARGUMENTS SETTINGS

*PROCESS* is a class of ``scrapy.crawler``; *ARGUMENTS* and *SETTINGS* are JSON, the latter by priority.
"""

from __future__ import annotations

import json
import sys

from scrapy import crawler
from scrapy.utils.project import get_project_settings


def main() -> None:
    kind, spider, args, own = sys.argv[1:]
    settings = get_project_settings()
    for priority, given in json.loads(own).items():
        settings.setdict(given, priority=priority)
    process = getattr(crawler, kind)(settings)
    process.crawl(spider, **json.loads(args))
    process.start()


if __name__ == "__main__":
    main()
