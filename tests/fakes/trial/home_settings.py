"""A project without a feed for workers, so that their items come home; short times, as in ``trial.settings``."""

from importlib.util import find_spec

BOT_NAME = "home"
NAMES = ("kinds", "pages", "troubles", "told", "handlers", "travellers", "members", "subpages", "various")
SPIDER_MODULES = [f"trial.home.{name}" for name in (*NAMES, *(["models"] if find_spec("pydantic") else []))]
TELNETCONSOLE_ENABLED = False
RETRY_ENABLED = False
LOG_LEVEL = "INFO"
FEED_STORAGES = {"kept": "trial.home.parts.KeptStorage", "full": "trial.storage.FullDisk"}

ADDONS = {"scrapy_distributed.Addon": 500}
DISTRIBUTED_TARGET_HOSTS = ["scrapyd2", "scrapyd3"]  # those that start workers warm
DISTRIBUTED_BATCH_SIZE = 6
DISTRIBUTED_POLL_INTERVAL = 0.2
DISTRIBUTED_RECEIPT_INTERVAL = 0.2
DISTRIBUTED_TIMEOUT = 10
