"""What is said of a job that has ended without a receipt."""

from __future__ import annotations

import pytest

from scrapy_distributed.agent.post_mortem import cause_of_death, last_error, lasting_fault, was_told_to_end

DISABLED = """2026-11-21 [scrapy.extensions.feedexport] ERROR: Disabled feed storage scheme: s3. Reason: missing boto3
2026-11-21 12:00:00 [twisted] CRITICAL: Unhandled error in Deferred:
Traceback (most recent call last):
  File "crawler.py", line 1, in crawl
scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: Scrapy has disabled the feed
"""


def test_a_job_without_a_log_died_at_its_start() -> None:
    assert "not installed on the node" in cause_of_death(None)


def test_a_job_that_we_have_ended_before_it_had_a_log_did_not_die_by_itself() -> None:
    assert cause_of_death(None, told=True) == "It was told to end before it had started"
    assert cause_of_death(None, began=True, told=True) == "It has no log any more"
    assert "No module named 'x'" in cause_of_death("ModuleNotFoundError: No module named 'x'", told=True)


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


SCRAPER = "2026-11-21 12:00:00 [scrapy.core.scraper] ERROR: Spider error processing <GET http://a/1> (referer: None)\n"
CAUGHT = f"""{SCRAPER}Traceback (most recent call last):
  File "spiders.py", line 7, in parse
    raise ValueError("INFO: two lines,
ValueError: this page is
not as expected
"""
INFO = "2026-11-21 12:00:01 [scrapy.extensions.logstats] INFO: Crawled 9 pages\n"
DEFERRED = """2026-11-21 12:00:02 [twisted] CRITICAL: Unhandled error in Deferred:
2026-11-21 12:00:02 [twisted] CRITICAL:\x20
Traceback (most recent call last):
  File "defer.py", line 1, in run
--- <exception caught here> ---
  File "pipelines.py", line 3, in open_spider
    raise Closed
shop.pipelines.Closed: no database
"""
KILLED = "It was at work, and its log tells no cause: killed, or out of memory?"
TWICE = "2026-11-21 12:00:02 [scrapy.crawler] INFO: Received SIGTERM twice, forcing unclean shutdown\n"


@pytest.mark.parametrize(
    ("log", "words", "not_said"),
    [
        (CAUGHT + INFO, f"{KILLED} The end of its log: Crawled 9 pages. An error before that, which need", ""),
        (CAUGHT + INFO, "Spider error processing <GET http://a/1> (referer: None): ValueError: this page", "log says"),
        (INFO + CAUGHT, f"{KILLED} The end of its log: Spider error processing", "log says"),
        (INFO + CAUGHT, "an error that it had caught, which need not be the cause", "log says"),
        (INFO + CAUGHT.partition("ValueError: this")[0], f"{KILLED} The end of its log: Spider error proc", "raise"),
        (INFO + SCRAPER + "Traceback (most recent call last):\n  File 'a'\nMemoryError\n", KILLED, "log says"),
        (CAUGHT[200:] + INFO, f"{KILLED} The end of its log: Crawled 9 pages", "log says"),
        (CAUGHT + DEFERRED, "Its log says: shop.pipelines.Closed: no database", "ValueError"),
        (DEFERRED + INFO, f"{KILLED} The end of its log: Crawled 9 pages. An error before", "log says"),
        (CAUGHT + TWICE, "It was told to end: Received SIGTERM twice, forcing unclean shutdown. The end", "log says"),
        (CAUGHT + INFO + "2026-11-21 12:0", f"{KILLED} The end of its log: Crawled 9 pages", "log says"),
        (CAUGHT + "2026-11-21 12:00:09 [scrapy.core.engine] INFO: Spider closed (finished)\n",
         "It closed its spider, and its final receipt is not there", "log says"),
        (INFO, f"{KILLED} The end of its log: Crawled 9 pages", "error"),
        ("", f"{KILLED} The end of its log: (empty)", "error"),
    ],
)  # fmt: skip
def test_a_job_that_was_at_work_died_of_what_ends_its_log(log: str, words: str, not_said: str) -> None:
    said = cause_of_death(log, began=True)
    assert words in said
    assert not not_said or not_said not in said


def test_a_job_that_had_not_begun_died_of_what_ends_its_log() -> None:
    module = "Traceback (most recent call last):\n  File 'a'\nModuleNotFoundError: No module named 'boto3'\n"
    for log in (module, INFO + "2026 [x] ERROR: x\n" + module, module[30:]):
        assert "Its log says: ModuleNotFoundError: No module named 'boto3'" in cause_of_death(log)
    assert "Its log says: SystemExit: 2" in cause_of_death(
        "Traceback (most recent call last):\n  File 'a'\nSystemExit: 2"
    )
    assert "Its log says: shop.pipelines.Closed: no database" in cause_of_death(CAUGHT + DEFERRED)
    said = cause_of_death(CAUGHT + INFO)  # the spider's own crawl: the plugin is not activated
    assert said.startswith(
        "The end of its log: Crawled 9 pages. If that is no error, see that scrapy_distributed is act"
    )
    assert "An error before that, which need not be the cause: Spider error processing" in said


@pytest.mark.parametrize(
    "form", ["{time} {level} {text}", "{level}: {text}", "[{level}] {text}", "{time} | {level} | {text}"]
)
def test_logs_of_another_form(form: str) -> None:
    records = [
        ("ERROR", "Spider error processing\nTraceback (most recent call last):\n  File\nKeyError: 1"),
        ("INFO", "on"),
    ]
    log = "\n".join(form.format(time="12:00:01", level=level, text=text) for level, text in records)
    assert cause_of_death(log, began=True).startswith(KILLED)


def test_why_a_feed_was_not_stored_is_what_names_feeds() -> None:
    feed = "2026-11-21 12:00:00 [scrapy.extensions.feedexport] ERROR: Error storing jl feed in: x\n"
    feed += "Traceback (most recent call last):\n  File 'a'\nftplib.error_perm: 552 no room\n"
    for log in (CAUGHT + feed, feed + CAUGHT, feed + CAUGHT + INFO):
        assert last_error(log) == "ftplib.error_perm: 552 no room"
    assert last_error(CAUGHT + INFO) == "ValueError: this page is"
    assert last_error(INFO) == last_error(None) == ""


@pytest.mark.parametrize("log", ["", "2026-11-21 [scrapy] INFO: Spider closed (finished)\n"])
def test_a_job_without_an_error_was_no_worker(log: str) -> None:
    assert "ADDONS" in cause_of_death(log)


def test_what_its_node_lacks_is_the_cause_whatever_the_log_says() -> None:
    for log in (None, "2026-11-29 04:20:54 [asyncio] DEBUG: Using selector: EpollSelector"):
        said = cause_of_death(log, lacking="project 'p': expected version '2', n0 has 1: scrapy fleet deploy")
        assert said == (
            "It died before its spider was loaded, and its node says why: project 'p': expected version '2', n0 has 1:"
            " scrapy fleet deploy"
        )


JOB = "20261129T042334-e54f-000005-1-de5386df"
TRACEBACK = """2026-11-21 12:00:02 [asyncio] ERROR: Task exception was never retrieved
Traceback (most recent call last):
  File 'a'
"""


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ("TypeError: S.__init__() got an unexpected keyword argument 'batch'\n", ""),
        ("ModuleNotFoundError: No module named 'boto3'\n", ""),
        ("NotADirectoryError: [Errno 20] Not a directory: '/srv/n1/eggs/shop/1.egg/shop/towns.csv'\n",
         "NotADirectoryError: [Errno 20] Not a directory: 'towns.csv'"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/towns.csv'\n", ""),
    ],
)  # fmt: skip
def test_what_each_job_would_die_of(log: str, fault: str) -> None:
    assert lasting_fault(INFO + TRACEBACK + log, job=JOB) == (fault or log.strip())


@pytest.mark.parametrize(
    "error",
    [
        "ConnectionRefusedError: [Errno 111] Connection refused",  # it may be back soon
        "OSError: [Errno 28] No space left on device",
        "MemoryError",
        "ValueError: maintenance",  # a server may have said so
        "scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: Scrapy has disabled the feed",  # that is of feeds
        "scrapy_distributed.errors.WireError: DISTRIBUTED_START_URL: element 3 is no request",  # of this batch
    ],
)
def test_what_another_job_may_not_die_of(error: str) -> None:
    assert lasting_fault(INFO + TRACEBACK + error, job=JOB) == ""


def test_a_page_that_has_failed_has_ended_no_job() -> None:
    error = SCRAPER + TRACEBACK.partition("\n")[2] + "KeyError: 'price'\n"
    assert lasting_fault(INFO + error, began=True, job=JOB) == ""
    assert lasting_fault(error + INFO, job=JOB) == ""
    own = DEFERRED.replace("shop.pipelines.Closed", "KeyError")
    assert lasting_fault(own, began=True, job=JOB) == "KeyError: no database"


def test_whether_somebody_has_ended_it() -> None:
    assert was_told_to_end(INFO + TWICE + INFO)
    assert not was_told_to_end(CAUGHT + INFO)
    assert was_told_to_end(None)  # perhaps: it had not begun to write one
    assert was_told_to_end(TRACEBACK + "KeyboardInterrupt\n")


def test_without_a_log_nothing_is_certain() -> None:
    """Most often it is what is not installed there; it may be a disk that is full for a while."""
    assert lasting_fault(None, job=JOB) == ""
