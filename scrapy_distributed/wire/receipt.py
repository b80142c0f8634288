"""The receipt of an attempt: written by the worker, read by the coordinator.

One small JSON file, beside the job's log in a sibling folder that Scrapyd serves and never prunes:
``logs/<project>/<spider>.receipts/<job>.json``. It is replaced as a whole every few seconds while the job runs (that is
its heartbeat) and once more, *final*, when the feed has been stored.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes
from scrapy_distributed.wire.code import Egg
from scrapy_distributed.wire.job import check_job_id
from scrapy_distributed.wire.payload import elements_of, unpacked, values_in
from scrapy_distributed.wire.reasons import MAX_REASON, is_of_callback
from scrapy_distributed.wire.seen_key import KEY_BYTES
from scrapy_distributed.words import shortened

FORMAT = 7
BITMAPS = ("settled", "again")
COUNTS = ("sequence", "size", "items", "pages", "activity", "unexported")

# What a receipt may hold. It is read on the event loop of the coordinator, and much of it is kept in the ledger.
MAX_BYTES = 16 * 1024 * 1024
MAX_RUNNING = 1024 * 1024  # bytes while its job runs: reasons, and
MAX_RUNNING_A_REQUEST = 16  # so many for each request
MAX_VALUES = 600_000  # of JSON: four for each feed, two for each stat, and what packed targets look like
VALUES_A_REQUEST = 6  # and so many for each request
MAX_COUNT = 2**53  # what every reader of JSON, and SQLite, holds exactly
MAX_FEEDS = 50_000
MAX_URL = 4096  # characters
MAX_REASONS = 1_000  # of what was followed and failed
MAX_EXAMPLES = 100
MAX_EXAMPLE = 300  # characters
MAX_KEY = 2_000  # hexadecimal digits of a fingerprint; Scrapy's own has 40
MAX_STATS = 5_000
MAX_STAT_NAME = 500  # characters
MAX_STAT = 2**63  # sums of them stay far below the largest float
MAX_TARGETS = 200_000  # in all payloads
MAX_PAYLOAD_TARGETS = 5_000  # as many as can be diverted in one turn of the event loop
MAX_TARGETS_BYTES = 64 * 1024 * 1024  # of all payloads together, unpacked
MAX_PAYLOADS = 2_000
MAX_PAYLOAD = 3 * 512 * 1024  # characters
MAX_ITEMS_BYTES = 1024 * 1024 * 1024  # of the file beside it; a worker ends when it has half as many
MAX_SLOTS = 1_000  # of a node: a machine of 250 cores has as many where nobody has set them
MAX_POLL = 3600.0  # seconds
MAX_PAYLOAD_VALUES = 200_000  # of JSON in a payload: parsed, each may take 64 bytes
_FINAL = re.compile(r'"final":\s*true')
_KEY = re.compile(r"(?:[0-9a-f]{2})+")
_dumps = json.JSONEncoder(separators=(",", ":")).encode
_DIGEST = re.compile(r"[0-9a-f]{64}")


class FeedFile(NamedTuple):
    """A file of a worker's feed: URL without password, number of *items*, and which *feed* of its job it is of (several
    where ``FEEDS`` has several; one may have several files)."""

    url: str
    items: int
    feed: int = 0


class ItemsFile(NamedTuple):
    """The file of *items* that lies beside a receipt, to be fetched: its *size* in bytes, and its SHA-256 in
    hexadecimal digits."""

    items: int
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a worker reports of its attempt. Positions and bitmaps are of the attempt's own payload.

    *sequence* grows with each write. *activity* never falls, and grows whenever the worker does something that can be
    seen; while a *finish_reason* is given and the receipt is not *final*, the feeds are being stored, which can't.
    *settled*: bitmap of requests with an outcome; *failed* and *filtered*: reason to positions, the rest of *settled*
    is crawled. *again*: bitmap of those that failed before their callback and have put nothing into a feed: they may be
    tried elsewhere. *clean*: no request without an outcome has put an item into the feed. *feeds*: the files, also
    the one that a feed without items would have, stored or not; only in the final receipt. *stored*: no feed was asked
    for, or all have been stored. *unexported*: items that are missing in a feed that was stored, as its format can't
    express them. *followed*: of the requests that were followed from those of the batch and failed, reason to number.
    *examples*: of some of the reasons of both, what the first error said, and where it was raised.
    *landed*: of those that were redirected, position and key (hexadecimal) which the last URL has as a request of its
    own. *targets*: requests for the fleet that the worker has found and not crawled, as payloads of ``wire``;
    *target_keys*: in a shared run, of each payload the ``seen_key`` of each request, in hexadecimal digits.
    *items_file*: where items come home, the file that has them. These six only in the final receipt.
    *slots*: how many jobs its node runs at once; *poll_seconds*: between two polls of its queue, 0 where jobs start at
    once; ``None`` where a job can't know. *egg*: what it runs, if that is an egg.
    """

    job: str
    sequence: int
    final: bool
    size: int
    settled: int
    failed: Mapping[str, list[int]] = field(default_factory=dict)
    filtered: Mapping[str, list[int]] = field(default_factory=dict)
    again: int = 0
    items: int = 0
    pages: int = 0
    activity: int = 0
    clean: bool = True
    stored: bool = False
    feeds: tuple[FeedFile, ...] = ()
    unexported: int = 0
    followed: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    landed: tuple[tuple[int, str], ...] = ()
    targets: tuple[str, ...] = ()
    target_keys: tuple[str, ...] = ()
    items_file: ItemsFile | None = None
    slots: int | None = None
    poll_seconds: float | None = None
    egg: Egg | None = None
    finish_reason: str = ""
    stats: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        bitmaps = {name: base64.b64encode(bitmap_to_bytes(getattr(self, name))).decode("ascii") for name in BITMAPS}
        return json.dumps(dict(vars(self), format=FORMAT, **bitmaps), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, *, size: int | None = None) -> Receipt:
        """Raises ``WireError`` for anything that ``to_json`` does not write, and for one of another *size*, if that is
        given."""
        if len(text) > MAX_BYTES:
            raise WireError(f"no receipt: it has {len(text):,} bytes, expected at most {MAX_BYTES:,}")
        try:
            _check_values(text, size)
            _check_length(text, size)
            data = json.loads(text)
            found = data.pop("format")
            if found != FORMAT:
                raise WireError(
                    f"a receipt of format {found!r:.60}, expected {FORMAT}: the same version must run everywhere"
                )
            _check_count("size", data["size"])
            if size is not None and data["size"] != size:
                raise WireError(f"no receipt: it speaks of {data['size']} requests, sent were {size}")
            for name in BITMAPS:
                data[name] = _bitmap(data[name], data["size"])
            tuples = _tuples_of(data)
            receipt = cls(**data, **tuples)
            receipt._check()
        except WireError:
            raise
        except Exception as error:
            raise WireError(f"no receipt: {shortened(f'{type(error).__name__}: {error}')}") from None
        return receipt

    def _check(self) -> None:
        """What a forged or damaged receipt would break: types, ranges, lengths, one outcome each."""
        for name in COUNTS:
            _check_count(name, getattr(self, name))
        for value, kind in (
            (self.job, str),
            (self.final, bool),
            (self.clean, bool),
            (self.stored, bool),
            (self.finish_reason, str),
            (self.stats, dict),
            (self.followed, dict),
            (self.examples, dict),
            *((text, str) for text in (*self.targets, *self.target_keys)),
        ):
            if not isinstance(value, kind):
                raise WireError(f"no receipt: found {value!r:.60}, expected a {kind.__name__}")
        check_job_id(self.job)
        for text in (self.finish_reason, *self.failed, *self.filtered, *self.followed):
            if len(text) > MAX_REASON or not text.isprintable():
                raise WireError(f"no receipt: found {text!r:.60}, expected at most {MAX_REASON} printable characters")
        if numbers(self.stats) != self.stats:
            raise WireError(f"no receipt: expected at most {MAX_STATS:,} stats, numbers below 2**63, with short names")
        of_the_end = (self.targets, self.feeds, self.stats, self.landed, self.followed, self.examples)
        if not self.final and any(of_the_end):
            raise WireError("no receipt: found targets, feeds, stats or losses, expected them in the final one alone")
        if self.items_file is not None:
            self._check_items_file(self.items_file)
        self._check_node()
        if self.settled.bit_length() > self.size:
            raise WireError("no receipt: it settles requests that it never had")
        self._check_feeds()
        self._check_outcomes()
        self._check_losses()
        self._check_examples()
        self._check_targets()

    def _check_node(self) -> None:
        if self.slots is not None and not (type(self.slots) is int and 0 < self.slots <= MAX_SLOTS):
            raise WireError(f"no receipt: found {self.slots!r:.60} slots of its node, expected 1 to {MAX_SLOTS:,}")
        poll = self.poll_seconds
        if poll is not None and not (type(poll) in (int, float) and 0 <= poll <= MAX_POLL):
            raise WireError(f"no receipt: found {poll!r:.60} seconds between polls, expected 0 to {MAX_POLL:.0f}")
        if self.egg is not None and not self.egg.is_well:
            raise WireError(f"no receipt: found {tuple(self.egg)!r:.60}, expected a version and the digest of its code")

    def _check_feeds(self) -> None:
        if len(self.feeds) > MAX_FEEDS or not all(_is_text(file.url, MAX_URL) for file in self.feeds):
            raise WireError(
                f"no receipt: expected at most {MAX_FEEDS:,} feeds (set FEED_EXPORT_BATCH_ITEM_COUNT higher), each with"
                f" a URL, a text of at most {MAX_URL:,} characters"
            )
        for file in self.feeds:
            _check_count(f"items of {file.url!r:.60}", file.items)
            _check_count(f"feed of {file.url!r:.60}", file.feed)

    def _check_items_file(self, file: ItemsFile) -> None:
        _check_count("items in the file beside it", file.items)
        _check_count("size of the file beside it", file.size)
        well = isinstance(file.digest, str) and _DIGEST.fullmatch(file.digest)
        if not (well and self.final and file.items <= file.size <= MAX_ITEMS_BYTES):
            found = shortened(str(tuple(file)), 120)
            raise WireError(
                f"no receipt: found {found}, expected items, bytes and SHA-256 of a file beside a final one"
            )

    def _check_outcomes(self) -> None:
        """Each position has to be settled and new. In bytes: a shift of a long bitmap copies it."""
        settled = bitmap_to_bytes(self.settled)
        seen = bytearray(len(settled))
        for position in self.positions(self.failed):
            _enter(position, settled, seen)
        if self.again & ~bitmap_from_bytes(bytes(seen)):
            raise WireError("no receipt: it names requests to be tried again that have not failed")
        for position in self.positions(self.filtered):
            _enter(position, settled, seen)

    def _check_losses(self) -> None:
        if len(self.followed) > MAX_REASONS:
            raise WireError(f"no receipt: expected at most {MAX_REASONS:,} reasons of what was followed and failed")
        for reason, count in self.followed.items():
            _check_count(f"number of {reason!r:.60}", count)
        if len({position for position, _ in self.landed}) < len(self.landed):
            raise WireError("no receipt: a request was redirected to two pages")
        for position, key in self.landed:
            if type(position) is not int or not 0 <= position < self.size:
                raise WireError(f"no receipt: position {position!r:.60} is none of its requests")
            if not isinstance(key, str) or len(key) > MAX_KEY or not _KEY.fullmatch(key):
                raise WireError(f"no receipt: found {key!r:.60}, expected a key of at most {MAX_KEY} digits")

    def _check_examples(self) -> None:
        if len(self.examples) > MAX_EXAMPLES or not self.examples.keys() <= {*self.failed, *self.followed}:
            raise WireError(f"no receipt: expected at most {MAX_EXAMPLES} examples, of reasons that it has")
        for text in self.examples.values():
            if not (isinstance(text, str) and len(text) <= MAX_EXAMPLE and text.isprintable()):
                raise WireError(f"no receipt: found {text!r:.60}, expected at most {MAX_EXAMPLE} printable characters")

    def _check_targets(self) -> None:
        """What is in them is told by who reads them, one after the other: to unpack them all takes seconds."""
        longest = max(map(len, self.targets), default=0)
        if len(self.targets) > MAX_PAYLOADS or longest > MAX_PAYLOAD:
            raise WireError(
                f"no receipt: {len(self.targets):,} payloads of up to {longest:,} characters, expected at most"
                f" {MAX_PAYLOADS:,} of {MAX_PAYLOAD:,}"
            )
        if self.target_keys and len(self.target_keys) != len(self.targets):
            raise WireError(f"no receipt: keys of {len(self.target_keys):,} payloads, it has {len(self.targets):,}")

    def found(self) -> Iterator[list[Any]]:
        """The elements of *targets*, as ``decode_payload`` gives them, a payload at a time. Raises ``WireError``
        at a bad one, and where it becomes more than a receipt may hold."""
        count = size = 0
        for payload in self.targets:
            try:
                text = unpacked(payload)
                size += len(text)
                if size > MAX_TARGETS_BYTES:
                    raise WireError(f"more than {MAX_TARGETS_BYTES:,} bytes of them, unpacked")
                elements = elements_of(text, most_values=MAX_PAYLOAD_VALUES)
                count += len(elements)
                if count > MAX_TARGETS or len(elements) > MAX_PAYLOAD_TARGETS:
                    raise WireError(f"more than {MAX_TARGETS:,} of them, or {MAX_PAYLOAD_TARGETS:,} in a payload")
            except WireError as error:
                raise WireError(f"targets in the receipt of job {self.job}: {error}") from None
            yield elements

    def found_with_keys(self) -> Iterator[list[tuple[bytes, str]]]:
        """``found`` of a shared run: pairs of ``seen_key`` and encoded request. Raises ``WireError``, also where it has
        no keys."""
        for elements, text in zip_longest(self.found(), self.target_keys, fillvalue=()):
            try:
                keys = bytes.fromhex(text) if isinstance(text, str) else b""
            except ValueError:
                keys = b""
            if len(keys) != KEY_BYTES * len(elements):
                raise WireError(f"targets in the receipt of job {self.job}: expected a key of each")
            each = (keys[first : first + KEY_BYTES] for first in range(0, len(keys), KEY_BYTES))
            yield [(key, _dumps(element)) for key, element in zip(each, elements, strict=True)]

    def landed_keys(self) -> list[tuple[int, bytes]]:
        """*landed*, with the keys as bytes."""
        return [(position, bytes.fromhex(key)) for position, key in self.landed]

    @property
    def callback_errors(self) -> int:
        """How many callbacks have raised, as far as requests have failed for that."""
        of_batch = sum(len(positions) for reason, positions in self.failed.items() if is_of_callback(reason))
        return of_batch + sum(number for reason, number in self.followed.items() if is_of_callback(reason))

    @staticmethod
    def positions(outcomes: Mapping[str, list[int]]) -> list[int]:
        return [position for positions in outcomes.values() for position in positions]


def numbers(stats: Mapping[str, Any]) -> dict[str, float]:
    """The stats that are numbers, within what a receipt may hold: what workers' stats are summed from."""
    found = (
        (name, value)
        for name, value in stats.items()
        if type(value) in (int, float) and abs(value) < MAX_STAT and _is_text(name, MAX_STAT_NAME)
    )
    return dict(islice(found, MAX_STATS))


def _check_count(name: str, count: Any) -> None:
    if type(count) is not int or not 0 <= count <= MAX_COUNT:
        raise WireError(f"no receipt: {name} is {count!r:.60}, expected a whole number of at least 0 and at most 2**53")


def _check_length(text: str | bytes, size: int | None) -> None:
    """One that is not final is read at each look, and tells little."""
    most = MAX_RUNNING + MAX_RUNNING_A_REQUEST * (size or 0)
    if len(text) > most and not _FINAL.search(text if isinstance(text, str) else text.decode("latin-1")):
        raise WireError(f"no receipt: it is not final and has {len(text):,} bytes, expected at most {most:,}")


def _check_values(text: str | bytes, size: int | None) -> None:
    """Before they are made: 16 MiB of ``[],`` take half a gigabyte and three seconds."""
    most = MAX_VALUES + VALUES_A_REQUEST * (size or 0)
    if len(text) > most:  # else it can't have more
        found = values_in(text if isinstance(text, str) else text.decode("latin-1"))
        if found > most:
            raise WireError(f"no receipt: it has about {found:,} values, expected at most {most:,}")


def _tuples_of(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of *data* that are lists in JSON, as what they are in a receipt; *data* is left without them."""
    for name in ("feeds", "landed", "targets", "target_keys"):
        if type(data[name]) is not list:
            raise TypeError(f"{name} must be a list")
    items_file, egg = data.pop("items_file"), data.pop("egg")
    return {
        "feeds": tuple(FeedFile(*file) for file in data.pop("feeds")),
        "landed": tuple((position, key) for position, key in data.pop("landed")),
        "targets": tuple(data.pop("targets")),
        "target_keys": tuple(data.pop("target_keys")),
        "items_file": None if items_file is None else ItemsFile(*items_file),
        "egg": None if egg is None else Egg(*egg),
    }


def _bitmap(text: str, size: int) -> int:
    """The bitmap of *size* positions in base64."""
    if len(text) > (size + 7) // 8 * 4 // 3 + 4:
        raise WireError("no receipt: it settles requests that it never had")
    return bitmap_from_bytes(base64.b64decode(text, validate=True))


def _enter(position: Any, settled: bytes, seen: bytearray) -> None:
    if type(position) is int and 0 <= position < 8 * len(settled):
        byte, bit = position >> 3, 1 << (position & 7)
        if settled[byte] & bit and not seen[byte] & bit:
            seen[byte] |= bit
            return
    raise WireError(f"no receipt: position {position!r:.60} is not settled, or has two outcomes")


def _is_text(text: Any, longest: int) -> bool:
    """Whether it has at most *longest* characters, and no lone surrogate: JSON takes one, a database does not."""
    if not isinstance(text, str) or len(text) > longest:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
