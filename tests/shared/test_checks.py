"""What speaks against a server, by what it says of itself."""

from __future__ import annotations

import pytest

from scrapy_distributed.shared.checks import findings

WELL = {
    "redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": "1", "maxmemory": "0",
    "used_memory": "1000000", "total_system_memory": "8000000000",
}  # fmt: skip
CONFIG = {"maxmemory-policy": "noeviction", "hash-max-listpack-entries": "128"}


def test_nothing_speaks_against_one_with_the_usual_settings_and_an_append_only_file() -> None:
    assert findings(WELL, CONFIG) == []
    assert findings(WELL | {"valkey_version": "9.1.0"}, CONFIG) == []


def test_one_that_says_nothing_of_itself_is_taken_as_it_is() -> None:
    assert findings({}, {}) == []


@pytest.mark.parametrize("info", [{"maxmemory_policy": "allkeys-lru"}, {"maxmemory_policy": "volatile-ttl"}])
def test_one_that_drops_keys_where_it_is_full_is_refused(info: dict[str, str]) -> None:
    (finding,) = findings(WELL | info, CONFIG)
    assert finding.refused
    assert f"found maxmemory-policy {info['maxmemory_policy']}, expected noeviction" in finding.text


def test_the_policy_is_known_by_its_settings_where_info_does_not_tell_it() -> None:
    info = {name: value for name, value in WELL.items() if name != "maxmemory_policy"}
    assert findings(info, {"maxmemory-policy": "allkeys-lfu"})[0].refused


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"redis_version": "6.0.16"}, "found Redis 6.0.16, expected 6.2 or newer"),
        ({"redis_version": "5.0"}, "found Redis 5.0, expected 6.2"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "found Valkey 7.1.0, expected 7.2"),
    ],
)
def test_one_that_is_too_old_is_refused(versions: dict[str, str], said: str) -> None:
    (finding,) = findings(WELL | versions, CONFIG)
    assert finding.refused
    assert said in finding.text


def test_one_without_an_append_only_file_may_be_used_and_that_is_said() -> None:
    (finding,) = findings(WELL | {"aof_enabled": "0"}, CONFIG)
    assert not finding.refused
    assert "set appendonly yes" in finding.text


def test_one_whose_small_hashes_become_tables_soon_takes_more_memory_and_that_is_said() -> None:
    (finding,) = findings(WELL, CONFIG | {"hash-max-listpack-entries": "64"})
    assert not finding.refused
    assert "found hash-max-listpack-entries 64" in finding.text


def test_the_memory_that_a_run_will_need_is_told_where_it_is_not_there() -> None:
    info = WELL | {"maxmemory": str(100 * 1024 * 1024)}
    assert findings(info, CONFIG, requests=1_000_000) == []
    (finding,) = findings(info, CONFIG, requests=2_000_000)
    assert not finding.refused
    assert "found 1 MB of 100 MB in use, and 2,000,000 requests take about 114 MB" in finding.text


def test_one_that_is_nearly_full_is_told_also_where_nobody_knows_how_large_a_run_becomes() -> None:
    (finding,) = findings(WELL | {"maxmemory": "1100000"}, CONFIG)
    assert finding.text.startswith("found 1 MB of 1 MB in use: a full server takes no more")
