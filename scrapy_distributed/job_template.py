"""What every job of a run gets besides its batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scrapy import Spider

from scrapy_distributed.batch import Attempt
from scrapy_distributed.config import Config
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.job import check_job
from scrapy_distributed.wire import START_URL


@dataclass(frozen=True, kw_only=True)
class JobTemplate:
    """The same for all jobs of a run: *version* of the egg ('' without one), settings and spider arguments.

    Raises ``ConfigError`` for what can't travel."""

    project: str
    spider: str
    version: str
    settings: Mapping[str, str]
    args: Mapping[str, str]

    def __post_init__(self) -> None:
        check_job("job", self.settings, self.args)

    @classmethod
    def from_config(
        cls, config: Config, spider: Spider, *, project: str, rules: tuple[int, ...], version: str
    ) -> JobTemplate:
        """*rules*: the rules of *spider* whose requests are the fleet's."""
        settings = dict(config.worker_settings)
        if rules:
            settings["DISTRIBUTED_TARGET_RULE"] = ",".join(map(str, rules))
        if config.target_callbacks:
            settings["DISTRIBUTED_TARGET_CALLBACKS"] = ",".join(config.target_callbacks)
        if config.target_feed_url:
            settings["FEED_URI"] = config.target_feed_url
            settings["FEEDS"] = "{}"  # else the project's own would be written too
        # Where nobody waits for receipts, what a worker finds must not be left in one.
        settings["DISTRIBUTED_WORKER_TARGETS"] = config.worker_targets if config.wait else "follow"
        missing = [name for name in config.worker_args if not hasattr(spider, name)]
        if missing:
            raise ConfigError(f"DISTRIBUTED_WORKER_ARGS: the spider has no {', '.join(missing)}; give it with -a")
        args = {name: str(getattr(spider, name)) for name in config.worker_args}
        return cls(project=project, spider=spider.name, version=version, settings=settings, args=args)

    def settings_of(self, payload: str) -> dict[str, str]:
        return {**self.settings, START_URL: payload}

    def args_of(self, attempt: Attempt) -> dict[str, str]:
        return {**self.args, "batch": attempt.label}
