"""Several crawls of the project in the current folder in one process, without a fleet: what others must equal.

    python local_crawls.py CRAWLS

*CRAWLS* is JSON: a list of spider, arguments and settings.
"""

from __future__ import annotations

import json
import sys

from scrapy.crawler import CrawlerProcess
from scrapy.utils.project import get_project_settings


def main() -> None:
    settings = get_project_settings()
    settings.set("DISTRIBUTED_ENABLED", False, priority="cmdline")
    process = CrawlerProcess(settings)
    for spider, args, own in json.loads(sys.argv[1]):
        crawler = process.create_crawler(spider)
        for name, value in own.items():
            crawler.settings.set(name, value, priority="cmdline")
        process.crawl(crawler, **args)
    process.start()


if __name__ == "__main__":
    main()
