"""How long a request takes, by settings alone."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy import Spider
from scrapy.settings import Settings

from scrapy_distributed.config.prior import DELAYS, LATENCY, LEAST, LONGEST, MANY, RAMP, Prior


def prior(*bodies: str, **settings: Any) -> Prior:
    found = Prior.of(Settings(settings), {}, None)
    found.note(bodies)
    return found


def hosts(number: int) -> list[str]:
    return [f'"http://h{one}.example/"' for one in range(number)]


@pytest.mark.parametrize(
    ("settings", "of_hosts", "seconds"),
    [
        ({}, 1, LATENCY / 8),
        ({}, 9, LEAST),  # 16 at once would be less than a page costs
        ({"CONCURRENT_REQUESTS": 2}, 9, LATENCY / 2),
        ({"CONCURRENT_REQUESTS_PER_DOMAIN": 1}, 1, LATENCY),
        ({"CONCURRENT_REQUESTS_PER_DOMAIN": 1}, 4, LATENCY / 4),
        ({"DOWNLOAD_DELAY": 0.5}, 0, 0.5 * DELAYS),
        ({"DOWNLOAD_DELAY": 0.5}, 1, 0.5 * DELAYS),
        ({"DOWNLOAD_DELAY": 0.5}, 4, 0.5 * DELAYS / 4),
        ({"DOWNLOAD_DELAY": 8}, 50, 8 * DELAYS / 16),  # no more than 16 wait for their turn at once
        ({"DOWNLOAD_DELAY": 800, "CONCURRENT_REQUESTS": 0}, 2 * MANY, 800 * DELAYS / MANY),
        ({"DOWNLOAD_DELAY": 1, "DOWNLOAD_SLOTS": {"h0.example": {"delay": 4}}}, 1, 4 * DELAYS),
        ({"DOWNLOAD_DELAY": 1, "DOWNLOAD_SLOTS": {"h0.example": {"delay": 4}}}, 2, DELAYS / 1.25),
        ({"AUTOTHROTTLE_ENABLED": True}, 1, LATENCY),
        ({"AUTOTHROTTLE_ENABLED": True, "DOWNLOAD_DELAY": 2}, 2, 2 * DELAYS / 2),
        ({"DOWNLOAD_DELAY": 1e9}, 1, LONGEST),
        ({"DOWNLOAD_DELAY": 1e-9}, 1, LEAST),
        ({"CONCURRENT_REQUESTS_PER_DOMAIN": 0}, 1, LONGEST),  # nothing would ever be fetched
    ],
)
def test_a_request_takes_what_the_settings_say_by_the_hosts_that_are_asked(
    settings: dict[str, Any], of_hosts: int, seconds: float
) -> None:
    assert prior(*hosts(of_hosts), **settings).seconds == pytest.approx(seconds)


def test_a_host_is_one_however_its_requests_are_written() -> None:
    same = ['"http://h0.example/a"', '"https://H0.example:8443?x"', '{"url":"http://u:p@h0.example/","method":"POST"}']
    assert prior(*same, DOWNLOAD_DELAY=1).seconds == pytest.approx(DELAYS)
    assert prior(*same, '{"meta":{},"url":"http://h1.example"}', DOWNLOAD_DELAY=1).seconds == pytest.approx(DELAYS / 2)


def test_what_is_queued_later_counts_as_well() -> None:
    found = prior(*hosts(1), DOWNLOAD_DELAY=1)
    found.note(hosts(2))
    assert found.seconds == pytest.approx(DELAYS / 2)


def test_jobs_have_settings_of_their_own_and_a_spider_has_attributes() -> None:
    class Slow(Spider):
        name = "slow"
        download_delay = 3

    assert Prior.of(Settings({"DOWNLOAD_DELAY": 1}), {"DOWNLOAD_DELAY": "2"}, None).seconds == 2 * DELAYS
    assert Prior.of(Settings(), {}, Slow).seconds == 3 * DELAYS


def test_autothrottle_begins_slowly_in_each_job() -> None:
    assert prior().ramp == 0
    assert prior(AUTOTHROTTLE_ENABLED=True).ramp == 5 * RAMP
    assert prior(AUTOTHROTTLE_ENABLED=True, AUTOTHROTTLE_START_DELAY=1, DOWNLOAD_DELAY=2).ramp == 2 * RAMP


def test_the_longest_delay_is_kept_before_each_job_but_for_that_of_autothrottle() -> None:
    slots = {"h1.example": {"delay": 4}}
    assert prior(*hosts(2)).delay == 0
    assert prior(*hosts(1), DOWNLOAD_DELAY=2, DOWNLOAD_SLOTS=slots).delay == 2
    assert prior(*hosts(2), DOWNLOAD_DELAY=2, DOWNLOAD_SLOTS=slots).delay == 4
    assert prior(*hosts(2), DOWNLOAD_DELAY=2, AUTOTHROTTLE_ENABLED=True).delay == 0
    assert prior(DOWNLOAD_DELAY=1e9).delay == LONGEST


def test_no_request_takes_less_than_the_delays_allow_but_where_a_site_has_none() -> None:
    slots = {"h1.example": {"delay": 4}}
    assert prior(*hosts(2)).least == 0
    assert prior(*hosts(1), DOWNLOAD_DELAY=2).least == 2
    assert prior(*hosts(2), DOWNLOAD_DELAY=2, DOWNLOAD_SLOTS=slots).least == 1 / (1 / 2 + 1 / 4)
    assert prior(*hosts(2), DOWNLOAD_SLOTS=slots).least == 0
    assert prior(*hosts(50), DOWNLOAD_DELAY=8).least == 8 / 16  # no more than 16 wait for their turn at once
    assert prior(*hosts(1), DOWNLOAD_DELAY=2, AUTOTHROTTLE_ENABLED=True).least == 2


def test_requests_may_name_a_download_slot() -> None:
    named = [f'{{"meta":{{"download_slot":"proxy {one}"}},"url":"http://h.example/{one}"}}' for one in range(4)]
    assert prior(*named, DOWNLOAD_DELAY=2).seconds == pytest.approx(2 * DELAYS / 4)


@pytest.mark.parametrize("settings", [{"DOWNLOAD_DELAY": "slow"}, {"DOWNLOAD_SLOTS": {"a": 3}, "DOWNLOAD_DELAY": "x"}])
def test_settings_that_no_job_can_read_say_nothing(settings: dict[str, Any]) -> None:
    assert prior(**settings).seconds == prior().seconds
