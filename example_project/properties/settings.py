"""Settings of the example: an ordinary Scrapy project, and four lines that make it a distributed one."""

from pathlib import Path

BOT_NAME = "properties"
SPIDER_MODULES = ["properties.spiders"]
NEWSPIDER_MODULE = "properties.spiders"

ROBOTSTXT_OBEY = False
CONCURRENT_REQUESTS = 16
CONCURRENT_REQUESTS_PER_DOMAIN = 16
# One item per page needs no hundred tasks to process it.
CONCURRENT_ITEMS = 1
# Many workers share one machine here: each would open a port of its own.
TELNETCONSOLE_ENABLED = False

# --- distributed ---

ADDONS = {"scrapy_distributed.Addon": 500}
# Targets of scrapy.cfg; host:port and whole URLs are taken as well.
DISTRIBUTED_TARGET_HOSTS = ["scrapyd1", "scrapyd2", "scrapyd3"]
# Workers write here. A fleet on several machines needs a place that all of them reach: ftp (as in demo/), s3, gs.
DISTRIBUTED_TARGET_FEED_URL = f"file://{Path.cwd()}/items/%(batch)s_%(name)s_%(time)s.jl"
# A file there is whole, or not there: whoever reads the folder meanwhile sees no parts.
FEED_STORAGES = dict.fromkeys(["", "file"], "scrapy_distributed.results.whole_file.WholeFileStorage")
