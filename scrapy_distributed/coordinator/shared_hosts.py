"""Where a shared run is, as an entry of ``DISTRIBUTED_TARGET_HOSTS``: the URL of a Redis or Valkey, alone or beside
workers on this machine, which join it then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.local_slots import is_local, local_slots
from scrapy_distributed.password import without_password
from scrapy_distributed.shared.address import RedisAddress, is_redis
from scrapy_distributed.words import shortened


class SharedHosts(NamedTuple):
    """The server at *address*, and how many *slots* a worker on this machine has (0: there is none)."""

    address: RedisAddress
    slots: int


def is_shared(hosts: Sequence[str]) -> bool:
    """Whether *hosts* mean a shared run, well written or not."""
    return any(is_redis(host.strip()) for host in hosts)


def shared_hosts(hosts: Sequence[str]) -> SharedHosts:
    """Raises ``ConfigError`` for anything beside that server and this machine."""
    servers = [host.strip() for host in hosts if is_redis(host.strip())]
    others = [host for host in hosts if not (is_local(host) or is_redis(host.strip()))]
    if others:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {shortened(without_password(others[0]))} beside a Redis: workers join a"
            " shared run by themselves (scrapy worker, on any machine), and a Scrapyd is sent jobs by the coordinator;"
            " expected the Redis alone, or with local[:N], or Scrapyds without it"
        )
    if len(servers) > 1:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found {len(servers)} entries for a Redis, expected one: a run is on one server"
        )
    return SharedHosts(RedisAddress.from_url(servers[0]), local_slots(hosts))
