"""The same project as the chaos tests deploy it: short times, their spiders, and faults inside the workers."""

from trial.settings import *  # noqa: F403

SPIDER_MODULES = ["trial.spiders", "trial.trouble", "trial.chaos", "properties.spiders"]
EXTENSIONS = {"trial.chaos.Faults": 0}
FEED_STORAGES = {"upload": "trial.chaos.Upload"}
DISTRIBUTED_SHUTDOWN_TIMEOUT = 3
# No request may end as dead only because we struck its workers too often.
DISTRIBUTED_MAX_ATTEMPTS = 50
