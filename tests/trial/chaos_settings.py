"""The same project as the chaos tests deploy it: short times, their spiders, and faults inside the workers."""

from trial.settings import *  # noqa: F403

SPIDER_MODULES = ["trial.spiders", "trial.trouble", "trial.chaos", "properties.spiders"]
EXTENSIONS = {"trial.chaos.Faults": 0}
FEED_STORAGES = {"upload": "trial.chaos.Upload"}
# A call that hangs, a lost job and a node that is gone are noticed soon: the suite has minutes, not hours.
DISTRIBUTED_TIMEOUT = 2
DISTRIBUTED_LEASE = 6
DISTRIBUTED_SHUTDOWN_TIMEOUT = 3
DISTRIBUTED_FLEET_TIMEOUT = 20
# No request may end as dead only because we struck its workers too often.
DISTRIBUTED_MAX_ATTEMPTS = 50
