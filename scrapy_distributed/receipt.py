"""The receipt of an attempt: written by the worker, read by the coordinator.

One small JSON file, beside the job's log in a sibling folder that Scrapyd serves and never prunes:
``logs/<project>/<spider>.receipts/<job>.json``. It is replaced as a whole every few seconds while the job runs (that is
its heartbeat) and once more, *final*, when the feed has been stored.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from scrapy_distributed.batch import bitmap_from_bytes, bitmap_to_bytes
from scrapy_distributed.errors import WireError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a worker reports of its attempt. Positions and bitmaps are of the attempt's own payload.

    *sequence* grows with each write. *settled*: bitmap of requests with an outcome; *failed* and *filtered*: reason to
    positions, the rest of *settled* is crawled. *clean*: no request without an outcome has put an item into the feed.
    *feeds*: URLs without passwords. *stored*: no feed was asked for, or all have been stored. *unexported*: items that
    are missing in a feed that was stored, e.g. because its format can't express them.
    """

    job: str
    sequence: int
    final: bool
    size: int
    settled: int
    failed: Mapping[str, list[int]] = field(default_factory=dict)
    filtered: Mapping[str, list[int]] = field(default_factory=dict)
    items: int = 0
    pages: int = 0
    clean: bool = True
    stored: bool = False
    feeds: tuple[str, ...] = ()
    unexported: int = 0
    finish_reason: str = ""
    stats: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        data = dict(vars(self), format=FORMAT, settled=base64.b64encode(bitmap_to_bytes(self.settled)).decode("ascii"))
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Raises ``WireError`` for anything that ``to_json`` does not write."""
        try:
            data = json.loads(text)
            found = data.pop("format")
            if found != FORMAT:
                raise WireError(
                    f"a receipt of format {found!r}, expected {FORMAT}: the same version must run everywhere"
                )
            data["settled"] = bitmap_from_bytes(base64.b64decode(data["settled"], validate=True))
            if type(data["feeds"]) is not list:
                raise TypeError("feeds must be a list")
            data["feeds"] = tuple(data["feeds"])
            receipt = cls(**data)
            receipt._check()
        except WireError:
            raise
        except Exception as error:
            raise WireError(f"no receipt: {type(error).__name__}: {error}") from None
        return receipt

    def _check(self) -> None:
        """What a forged or damaged receipt would break: types, ranges, one outcome each."""
        for value, kind in (
            (self.job, str), (self.sequence, int), (self.final, bool), (self.size, int), (self.items, int),
            (self.pages, int), (self.unexported, int), (self.clean, bool), (self.stored, bool),
            (self.finish_reason, str), (self.stats, dict),
        ):  # fmt: skip
            if not isinstance(value, kind):
                raise WireError(f"no receipt: found {value!r:.60}, expected a {kind.__name__}")
        if not all(isinstance(feed, str) for feed in self.feeds) or numbers(self.stats) != self.stats:
            raise WireError("no receipt: feeds must be strings, and stats numbers")
        if self.size < 0 or self.settled.bit_length() > self.size or self.items < 0:
            raise WireError("no receipt: it settles requests that it never had")
        seen = 0
        for position in (*self.positions(self.failed), *self.positions(self.filtered)):
            if type(position) is not int or position < 0 or not self.settled >> position & 1 or seen >> position & 1:
                raise WireError(f"no receipt: position {position!r:.60} is not settled, or has two outcomes")
            seen |= 1 << position

    @staticmethod
    def positions(outcomes: Mapping[str, list[int]]) -> list[int]:
        return [position for positions in outcomes.values() for position in positions]


def receipt_path(log_file: str, job: str) -> Path:
    """Where the worker writes, from the ``LOG_FILE`` that Scrapyd gives it (``<project>/<spider>/<job>.log``)."""
    folder = Path(log_file).absolute().parent
    return folder.with_name(folder.name + ".receipts") / f"{job}.json"


def write(path: Path, receipt: Receipt) -> None:
    """Replace the receipt at *path* as a whole: a reader sees the old one or the new one. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    with draft.open("w", encoding="ascii") as file:
        file.write(receipt.to_json())
        if receipt.final:  # a power cut must not leave an empty final receipt
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)


def without_password(url: str) -> str:
    """*url* without its password; the user stays."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
    except ValueError:  # a slash or a bracket in a password, as secrets of S3 have them
        return re.sub("://.*@", "://", url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def numbers(stats: Mapping[str, Any]) -> dict[str, float]:
    """The stats that are numbers, JSON-safe: what workers' stats are summed from."""
    return {
        key: value
        for key, value in stats.items()
        if type(value) in (int, float) and value == value and abs(value) != float("inf")
    }
