"""A project as ``scrapy startproject`` makes it, with this project's add-on; see ``schedules``."""

import os

BOT_NAME = "sleeping"
SPIDER_MODULES = ["sleeping.spider"]
ROBOTSTXT_OBEY = False
TELNETCONSOLE_ENABLED = False
# So the site knows the workers of a slow node.
USER_AGENT = f"sleeping times {os.environ.get('PAGES_TAKE', '1')}"

ADDONS = {"scrapy_distributed.Addon": 500}
DISTRIBUTED_TARGET_CALLBACKS = ["parse_page"]
