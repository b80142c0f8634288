"""Where a Redis is, as users write it."""

from __future__ import annotations

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.shared.address import RedisAddress, is_redis


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://queue", "redis://queue:6379/0"),
        ("redis://queue:7000/3", "redis://queue:7000/3"),
        ("rediss://queue/", "rediss://queue:6379/0"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock?db=0"),
        ("unix:///run/valkey.sock?db=2", "unix:///run/valkey.sock?db=2"),
    ],
)
def test_each_form_is_understood(url: str, shown: str) -> None:
    assert str(RedisAddress.from_url(url, {})) == shown
    assert is_redis(url)


def test_user_and_password_are_taken_and_never_shown() -> None:
    address = RedisAddress.from_url("rediss://bob:s%2Fcr%40t@queue", {})
    assert (address.username, address.password, address.tls) == ("bob", "s/cr@t", True)
    assert "bob" not in f"{address} {address!r}"
    assert "s/cr" not in f"{address} {address!r}"


def test_they_may_be_in_the_environment_and_those_of_the_url_go_before() -> None:
    environment = {"DISTRIBUTED_REDIS_USERNAME": "bob", "DISTRIBUTED_REDIS_PASSWORD": "one"}
    assert RedisAddress.from_url("redis://queue", environment).password == "one"
    address = RedisAddress.from_url("redis://:two@queue", environment)
    assert (address.username, address.password) == ("bob", "two")


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://queue:port", "redis://queue:99999", "redis://queue/first", "redis://queue/-1", "unix://",
        "redis://bob:s3cret@queue:x/0", "redis://[::1", "unix:///run/s?db=x",
    ],
)  # fmt: skip
def test_another_form_is_refused_in_a_sentence_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"a Redis: found '\S*', expected redis://host:6379/0") as refused:
        RedisAddress.from_url(url, {})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("entry", ["scrapyd1:6800", "http://redis:6800", "local:4", "redis:6379"])
def test_other_hosts_are_none(entry: str) -> None:
    assert not is_redis(entry)
