"""Where a shared run is, as the setting says it."""

from __future__ import annotations

import pytest

from scrapy_distributed.coordinator.shared_hosts import is_shared, shared_hosts
from scrapy_distributed.errors import ConfigError


def test_a_redis_alone_or_with_workers_on_this_machine() -> None:
    alone = shared_hosts(["redis://user:pass@queue:6380/2"])
    assert (str(alone.address), alone.slots) == ("redis://queue:6380/2", 0)
    assert shared_hosts([" redis://queue ", "local:3"]).slots == 3


@pytest.mark.parametrize(
    ("hosts", "shared"),
    [
        (["redis://q"], True),
        (["local", "rediss://q"], True),
        (["unix:///s"], True),
        (["redis:6800"], False),
        ([], False),
    ],
)
def test_it_is_known_by_its_scheme(hosts: list[str], shared: bool) -> None:
    assert is_shared(hosts) is shared


@pytest.mark.parametrize("other", ["scrapyd1:6800", "http://user:secret@scrapyd1:6800", "scrapyd*"])
def test_a_scrapyd_beside_it_is_refused_without_its_password(other: str) -> None:
    with pytest.raises(ConfigError, match="beside a Redis: workers join a shared run by themselves") as refused:
        shared_hosts(["redis://q", other])
    assert "secret" not in str(refused.value)


def test_two_of_them_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 2 entries for a Redis, expected one"):
        shared_hosts(["redis://q", "redis://r"])
