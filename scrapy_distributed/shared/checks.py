"""Is a server fit for runs? Pure, over what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

OLDEST_REDIS, OLDEST_VALKEY = (6, 2), (7, 2)
KEEPS = "noeviction"
LISTPACK = 128  # entries of a hash that stays compact; what the seen-set counts on
BYTES_A_REQUEST = 60  # of a run that is added faster than it is crawled
FULL_AT = 0.9  # of maxmemory


class Finding(NamedTuple):
    """*refused*: no run may begin there; else it may, and its user should know. *text*: what was found, what is
    expected, what to do."""

    refused: bool
    text: str


def findings(info: Mapping[str, str], config: Mapping[str, str], *, requests: int = 0) -> list[Finding]:
    """What speaks against a server with this ``INFO`` and ``CONFIG GET *``, either of which may lack anything.
    *requests*: how many a run will have at once, where that is known."""
    found = [_version(info), _policy(info, config), _durable(info), _hashes(config), _memory(info, requests)]
    return [finding for finding in found if finding is not None]


def _version(info: Mapping[str, str]) -> Finding | None:
    valkey = info.get("valkey_version")
    name, text, oldest = (
        ("Valkey", valkey, OLDEST_VALKEY) if valkey else ("Redis", info.get("redis_version"), OLDEST_REDIS)
    )
    if not text:
        return None
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers >= oldest:
        return None
    return Finding(True, f"found {name} {text}, expected {'.'.join(map(str, oldest))} or newer: use a newer one")


def _policy(info: Mapping[str, str], config: Mapping[str, str]) -> Finding | None:
    policy = info.get("maxmemory_policy") or config.get("maxmemory-policy")
    if policy in (None, KEEPS):
        return None
    return Finding(
        True,
        f"found maxmemory-policy {policy}, expected {KEEPS}: a full server would drop keys, and URLs with them; set"
        f" maxmemory-policy {KEEPS}",
    )


def _durable(info: Mapping[str, str]) -> Finding | None:
    if info.get("aof_enabled") != "0":
        return None
    return Finding(
        False,
        "found no append-only file: where the server ends, what happened since its last snapshot is lost, or all of"
        " the run; set appendonly yes",
    )


def _hashes(config: Mapping[str, str]) -> Finding | None:
    text = config.get("hash-max-listpack-entries") or config.get("hash-max-ziplist-entries")
    if text is None or not text.isdigit() or int(text) >= LISTPACK:
        return None
    return Finding(
        False,
        f"found hash-max-listpack-entries {text}, expected {LISTPACK} or more: known URLs take three times the memory"
        f" otherwise; set hash-max-listpack-entries {LISTPACK}",
    )


def _memory(info: Mapping[str, str], requests: int) -> Finding | None:
    most, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if not most:
        most = int(info.get("total_system_memory") or 0)
    if not most:
        return None
    needed = requests * BYTES_A_REQUEST
    if used + needed <= most * FULL_AT:
        return None
    of_run = f", and {requests:,} requests take about {_mb(needed)}" if requests else ""
    return Finding(
        False,
        f"found {_mb(used)} of {_mb(most)} in use{of_run}: a full server takes no more requests until some are crawled;"
        " give it more memory (maxmemory)",
    )


def _mb(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MB"
