"""The example's settings, in which the example's own spiders run as well, and what makes tests quick."""

from properties.settings import *  # noqa: F403

BOT_NAME = "trial"
SPIDER_MODULES = ["trial.spiders", "trial.trouble", "trial.losses", "properties.spiders"]
ITEM_PIPELINES = {"trial.pipelines.Refuse": 100}
DISTRIBUTED_POLL_INTERVAL = 0.2
DISTRIBUTED_RECEIPT_INTERVAL = 0.2
DISTRIBUTED_TIMEOUT = 10
LOG_LEVEL = "INFO"
