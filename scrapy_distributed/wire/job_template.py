"""What every job of a run gets besides its batch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.job import check_job, check_project, check_spider
from scrapy_distributed.wire.payload import MAX_VALUE_BYTES, NEVER_USED, SLOT_FREE_SINCE, START_URL
from scrapy_distributed.words import shortened

_A_TOKEN = "0" * 8  # as long as those of attempts are


@dataclass(frozen=True, kw_only=True)
class JobTemplate:
    """The same for all jobs of a run: *version* of the egg ('' without one), settings and spider arguments.

    Raises ``ConfigError`` for what can't travel, also beside the longest batch."""

    project: str
    spider: str
    version: str
    settings: Mapping[str, str]
    args: Mapping[str, str]

    def __post_init__(self) -> None:
        check_project(self.project)
        check_spider(self.spider)
        check_job("job", self.settings_of("x" * MAX_VALUE_BYTES, _A_TOKEN), self.args)

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> JobTemplate:
        """Raises ``WireError`` for what ``to_json`` does not write."""
        try:
            template = cls(**json.loads(text))
            texts = (*template.settings.items(), *template.args.items(), (template.version, ""))
            if not all(type(one) is str for pair in texts for one in pair):
                raise TypeError("a value that is no text")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            found = shortened(f"{type(error).__name__}: {error}")
            raise WireError(f"the template of jobs can't be read: {found}") from None
        return template

    def with_done(self, jobs: Sequence[str]) -> JobTemplate:
        """For a job that is to remove the items of *jobs*, which have come home or do not count."""
        if self.settings.get("DISTRIBUTED_ITEMS") != "home" or not jobs:
            return self
        return replace(self, settings={**self.settings, "DISTRIBUTED_DONE_JOBS": ",".join(jobs)})

    def in_new_slot(self) -> JobTemplate:
        """For a job in a slot that had none before."""
        return replace(self, settings={**self.settings, SLOT_FREE_SINCE: str(NEVER_USED)})

    def settings_of(self, payload: str, token: str) -> dict[str, str]:
        """Those of the job of the attempt with *token*: no other job writes a feed of the same name."""
        feeds = {}
        if uri := self.settings.get("FEED_URI"):
            feeds["FEED_URI"] = with_token(uri, token)
        if "FEEDS" in self.settings:
            named = json.loads(self.settings["FEEDS"])
            feeds["FEEDS"] = json.dumps({with_token(uri, token): options for uri, options in named.items()})
        return {**self.settings, **feeds, START_URL: payload}

    def args_of(self, label: str) -> dict[str, str]:
        """*label*: that of the attempt."""
        return {**self.args, "batch": label}


def with_token(feed: str, token: str) -> str:
    """The URL *feed*, a template of Scrapy's, with *token* behind each ``%(batch)s``: two runs, or a run and a copy of
    it, have batches of the same number. One with ``%(_job)s`` has the token in it."""
    if "%(_job)s" in feed.replace("%%", ""):
        return feed
    return re.sub(r"%%|%\(batch\)s", lambda found: found[0] if found[0] == "%%" else f"{found[0]}-{token}", feed)
