"""Where a Redis or Valkey is, with whom to log in; what is shown of it has no password."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from scrapy_distributed.errors import ConfigError

SCHEMES = ("redis", "rediss", "unix")
USERNAME, PASSWORD = "DISTRIBUTED_REDIS_USERNAME", "DISTRIBUTED_REDIS_PASSWORD"
CERTIFICATE, KEY = "DISTRIBUTED_REDIS_CERTIFICATE", "DISTRIBUTED_REDIS_KEY"
EXPECTED = "expected redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket?db=0"


def is_redis(entry: str) -> bool:
    """Whether *entry* of a list of hosts means a Redis, well written or not."""
    return entry.partition("://")[0].lower() in SCHEMES and "://" in entry


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """*host* and *port*, or the *path* of a socket; *tls*: by ``rediss://``. *certificate*, *key*: files of those that
    tell who we are, '' if there is none, or the key is in the file of the certificate."""

    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    tls: bool = False
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)

    def __str__(self) -> str:
        """For people: where, and nobody's name."""
        place = self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")
        scheme = "unix" if self.path else "rediss" if self.tls else "redis"
        database = f"?db={self.database}" if self.path else f"/{self.database}"
        return f"{scheme}://{place}{database}"

    @classmethod
    def from_url(cls, url: str, environment: Mapping[str, str] = os.environ) -> RedisAddress:
        """User and password are those of *url*, else those of the *environment*, where our certificate is named as
        well. Raises ``ConfigError``."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6379
            username, password = unquote(parts.username or ""), unquote(parts.password or "")
            text = parse_qs(parts.query).get("db", ["0"])[0] if parts.scheme == "unix" else parts.path.strip("/") or "0"
            database = int(text)
        except ValueError:
            raise ConfigError(f"a Redis: found {_shown(url)}, {EXPECTED}") from None
        place = parts.path if parts.scheme == "unix" else parts.hostname
        if parts.scheme not in SCHEMES or not place or database < 0:
            raise ConfigError(f"a Redis: found {_shown(url)}, {EXPECTED}")
        at_socket = parts.scheme == "unix"
        return cls(
            host="" if at_socket else place, path=place if at_socket else "", port=port, database=database,
            tls=parts.scheme == "rediss", username=username or environment.get(USERNAME, ""),
            password=password or environment.get(PASSWORD, ""), certificate=environment.get(CERTIFICATE, ""),
            key=environment.get(KEY, ""),
        )  # fmt: skip


def _shown(url: str) -> str:
    """Of what can't be read nobody knows what is the password."""
    scheme, mark, rest = url.partition("://")
    return repr(f"{scheme}{mark}{rest.rpartition('@')[2]:.60}")
