"""What is said of a job that has ended without a receipt."""

from __future__ import annotations

import pytest

from scrapy_distributed.post_mortem import cause_of_death, last_error

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


def test_no_password_comes_home_with_an_error() -> None:
    line = "2026 [storage] ERROR: no room at ftp://u:s3cret@h/1.jl"
    assert cause_of_death(f"{line}\nOSError: no place at ftp://u:s3cret@h/1.jl\n") == (
        "Its log says: OSError: no place at ftp://u@h/1.jl, after no room at ftp://u@h/1.jl"
    )
    assert "The end of its log: ftp://u@h/" in cause_of_death("ftp://u:s3cret@h/1.jl")
    assert last_error(line) == "no room at ftp://u@h/1.jl"


def test_what_an_ftp_server_answers_is_told() -> None:
    log = "2026 [feedexport] ERROR: Error storing\nTraceback:\nftplib.error_perm: 530 Authentication failed.\n"
    assert last_error(log) == "ftplib.error_perm: 530 Authentication failed."


def test_the_last_of_several_errors_is_told() -> None:
    said = cause_of_death("ValueError: first\n\nDuring handling of the above:\n  KeyError: 'indented'\nlater\n")
    assert "KeyError: 'indented'" in said
    assert "first" not in said


def test_a_traceback_that_was_logged_is_not_told_twice() -> None:
    said = cause_of_death("2026 [scrapy] ERROR: Traceback (most recent call last):\nMemoryError\n")
    assert said == "Its log says: MemoryError"


def test_what_is_told_is_cut() -> None:
    assert len(cause_of_death("x" * 9000)) < 1000
    assert len(cause_of_death(f"2026 [a] ERROR: {'y' * 9000}\nValueError: {'x' * 9000}\n")) < 1000


def test_a_hint_for_a_spider_that_takes_no_arguments() -> None:
    assert "**kwargs" in cause_of_death("TypeError: Shop.__init__() got an unexpected keyword argument '_job'\n")


@pytest.mark.parametrize("log", ["", "2026-11-21 [scrapy] INFO: Spider closed (finished)\n"])
def test_a_job_without_an_error_was_no_worker(log: str) -> None:
    assert "ADDONS" in cause_of_death(log)
