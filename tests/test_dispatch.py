"""What the dispatcher says of a job that ended without a receipt. Its doings are tested in crawls."""

from __future__ import annotations

import pytest

from scrapy_distributed.batch import Attempt, AttemptState
from scrapy_distributed.dispatch import JobTemplate, cause_of_death
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.wire import MAX_ARGUMENT_BYTES

DISABLED = """2026-11-21 [scrapy.extensions.feedexport] ERROR: Disabled feed storage scheme: s3. Reason: missing boto3
2026-11-21 12:00:00 [twisted] CRITICAL: Unhandled error in Deferred:
Traceback (most recent call last):
  File "crawler.py", line 1, in crawl
scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: Scrapy has disabled the feed
"""


def test_a_job_without_a_log_died_at_its_start() -> None:
    assert "not installed on the node" in cause_of_death(None)


def test_the_error_and_what_was_logged_before_it() -> None:
    said = cause_of_death(DISABLED)
    assert "ConfigError: FEED_URI/FEEDS: Scrapy has disabled the feed" in said
    assert "after Disabled feed storage scheme: s3. Reason: missing boto3" in said
    assert "ADDONS" not in said


def test_a_hint_for_a_spider_that_takes_no_arguments() -> None:
    assert "**kwargs" in cause_of_death("TypeError: Shop.__init__() got an unexpected keyword argument '_job'\n")


@pytest.mark.parametrize("log", ["", "2026-11-21 [scrapy] INFO: Spider closed (finished)\n"])
def test_a_job_without_an_error_was_no_worker(log: str) -> None:
    assert "ADDONS" in cause_of_death(log)


def test_a_template_that_can_not_travel_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 131071"):
        JobTemplate(project="p", spider="s", version="", settings={"KEY": "x" * MAX_ARGUMENT_BYTES}, args={})


def test_the_label_of_an_attempt_travels_as_argument() -> None:
    job = JobTemplate(project="p", spider="s", version="", settings={"A": "1"}, args={"site": "x"})
    attempt = Attempt(run="r", batch=12, number=2, node="n", state=AttemptState.BOUND, positions=1)
    assert job.args_of(attempt) == {"site": "x", "batch": "12.2"}
    assert job.settings_of("[]") == {"A": "1", "DISTRIBUTED_START_URL": "[]"}
