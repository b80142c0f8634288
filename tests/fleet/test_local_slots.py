"""Workers on this machine as an entry in the list of nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import addresses, places
from scrapy_distributed.fleet.local_slots import _quota, cores, is_local, local_slots


@pytest.mark.parametrize(
    ("hosts", "slots"),
    [
        (["local:4"], 4),
        ([" local:1 "], 1),
        (["Local:3"], 3),
        (["scrapyd1:6800", "local:12"], 12),
        (["local"], cores()),
        (["scrapyd1:6800"], 0),
        (["localhost"], 0),
        (["local.example"], 0),
        (["http://local:6800"], 0),
        (["local*"], 0),
        ([], 0),
    ],
)
def test_what_entries_ask_for(hosts: list[str], slots: int) -> None:
    assert local_slots(hosts) == slots
    assert any(map(is_local, hosts)) == bool(slots)


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (["local:0"], "found local:0, expected local or local:N for N workers on this machine, 1 to 1000"),
        (["local:x"], "found local:x, expected local or local:N"),
        (["local:-1"], "found local:-1, expected local or local:N"),
        (["local:6800"], "for a host of that name give its URL, http://local:6800"),
        (["local", "local:2"], "found 2 entries for workers on this machine, expected one"),
    ],
)
def test_what_is_refused(hosts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        local_slots(hosts)


def test_a_target_of_that_name_is_not_mistaken_for_it() -> None:
    with pytest.raises(ConfigError, match="'local', which is the name of a target in"):
        local_slots(["local"], {"local": object()})
    assert local_slots(["local:3"], {"local": object()}) == 3


def test_they_are_no_address() -> None:
    assert [address.name for address in addresses(["local", "a:1"], targets={})] == ["a:1"]
    assert addresses(["local:4"], targets={}) == []
    assert places(["local:4", "a:1"]) == [("a", 1)]
    assert places(["redis://user:pass@queue", "rediss://q:7000/1", "redis://q:x"]) == [("queue", 6379), ("q", 7000)]


# How many


def test_cores_are_those_of_this_process() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "50000 100000", "a/b/cpu.max": "90000 100000"}, 0.5),
        ("0::/not/there", {"cpu.max": "70000 100000"}, 0.7),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/", {"cpu.max": "1 0"}, None),
        (
            "4:cpu,cpuacct:/c\n1:name=systemd:/",
            {"cpu/c/cpu.cfs_quota_us": "25000", "cpu/c/cpu.cfs_period_us": "50000"},
            0.5,
        ),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {}, None),
        (None, {}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, own: str | None, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    assert _quota(tmp_path, tmp_path / "own") == (quota or os.cpu_count() or 1)
