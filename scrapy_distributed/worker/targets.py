"""Targets that a worker finds: not followed there, but reported to the coordinator, which knows what the run has seen.

They are told and encoded as on the coordinator, and each is reported once per job; in a shared run with its key in the
seen-set, as nobody there has the project at hand to find it out.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from scrapy import Request
from scrapy.crawler import Crawler

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import Diverter
from scrapy_distributed.divert.duplicates import are_filtered
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.wire.payload import encode_payload, values_in
from scrapy_distributed.wire.receipt import MAX_PAYLOAD_TARGETS, MAX_PAYLOAD_VALUES, MAX_TARGETS
from scrapy_distributed.wire.seen_key import seen_key
from scrapy_distributed.worker.sessions import Sessions

logger = logging.getLogger(__name__)

PAYLOAD_REQUESTS = MAX_PAYLOAD_TARGETS
PAYLOAD_BYTES = 1024 * 1024  # unpacked; one request that is longer has a payload of its own
PAYLOAD_VALUES = MAX_PAYLOAD_VALUES // 2  # likewise; one request with more can't be reported
# Of all payloads: less than a receipt may hold (``receipt.MAX_*``), for there is more in it.
ROOM_REQUESTS = MAX_TARGETS
ROOM_BYTES = 60 * 1024 * 1024  # unpacked
ROOM_PACKED_BYTES = 8 * 1024 * 1024


class Targets:
    """The targets that have left the pages of a worker whose batch is *own*; encoded, in the order found, and packed as
    soon as they fill a payload."""

    def __init__(
        self, crawler: Crawler, *, config: Config, own: Sequence[Request], offsite: Offsite, sessions: Sessions
    ) -> None:  # fmt: skip
        assert crawler.spider is not None
        self.stats = crawler.stats
        self.own = own
        self.sessions = sessions
        self._position = 0  # of the start request that has led to what is taken
        self._unfiltered: list[tuple[int, bytes, str]] = []  # with the position of the start request
        self._with_keys = config.found_keys
        self._source = str(getattr(crawler.spider, "_job", "")).encode()
        self._open: list[str] = []
        self._open_keys: list[str] = []
        self._keys: list[str] = []
        self._open_bytes = self._open_values = 0
        self._packed: list[str] = []
        self._packed_bytes = 0
        self._count = self._bytes = 0  # of all, unpacked
        self._full_logged = False
        self._occurrences: Counter[bytes] = Counter()
        self._seen: set[bytes] | None = None
        self._diverter = Diverter(
            config=config, spider=crawler.spider, stats=crawler.stats, offsite=offsite,
            fingerprint=fingerprinter_of(crawler), occurrence=self._occurrence, filters=are_filtered(crawler.settings),
            session_of=lambda request: self.sessions.passed_on(self._position, request),
        )  # fmt: skip
        self.is_target = self._diverter.is_target

    def take(self, request: Request, position: int) -> Request | None:
        """Report the target *request*, to which the start request at *position* has led. Returns it if it is to be
        crawled here, because it can't travel or may not, or because no more go into a receipt."""
        assert self.stats is not None
        if self._seen is None:  # not earlier: most workers find none
            self._seen = set(self._keys_of_own())
        self._position = position
        entries, here = self._diverter.find(request)
        for key, body in entries:
            if key in self._seen:
                self.stats.inc_value("distributed/targets_duplicates")
                continue
            self._seen.add(key)
            if not self._has_room(body):
                self._log_full()
                self.stats.inc_value("distributed/local/receipt_full")
                return request
            self._count += 1
            if self._diverter.can_be_duplicate(request):
                self._add(key, body)
            else:
                self._unfiltered.append((position, key + self._source, body))
            self.stats.inc_value("distributed/targets_reported")
        return here[0] if here else None

    def payloads(self, settled: int) -> tuple[str, ...]:
        """Each of at most ``PAYLOAD_REQUESTS``, ``PAYLOAD_BYTES`` and ``PAYLOAD_VALUES``, or of one request. *settled*:
        bitmap of start requests; another attempt does the others, and finds again what is not to be filtered."""
        unfiltered, self._unfiltered = self._unfiltered, []
        for position, key, body in unfiltered:
            if settled >> position & 1:
                self._add(key, body)
        self._pack()
        return tuple(self._packed)

    @property
    def keys(self) -> tuple[str, ...]:
        """Of each of the ``payloads`` that were made, as a receipt has them; none where nobody asks for them."""
        return tuple(self._keys)

    def _has_room(self, body: str) -> bool:
        return (
            self._count < ROOM_REQUESTS
            and self._bytes + len(body) < ROOM_BYTES
            and self._packed_bytes + self._open_bytes < ROOM_PACKED_BYTES
            and values_in(body) < MAX_PAYLOAD_VALUES
        )

    def _add(self, key: bytes, body: str) -> None:
        values = values_in(body) + 1
        is_full = len(self._open) >= PAYLOAD_REQUESTS or self._open_bytes + len(body) > PAYLOAD_BYTES
        if is_full or self._open_values + values > PAYLOAD_VALUES:
            self._pack()
        self._open.append(body)
        if self._with_keys:
            self._open_keys.append(seen_key(key).hex())
        self._open_bytes += len(body)
        self._open_values += values
        self._bytes += len(body) + 1
        if self._open_bytes >= PAYLOAD_BYTES:  # one that is long: packed, it is short
            self._pack()

    def _pack(self) -> None:
        if self._open:
            self._packed.append(encode_payload(self._open))
            self._packed_bytes += len(self._packed[-1])
            if self._with_keys:
                self._keys.append("".join(self._open_keys))
                self._open_keys = []
            self._open, self._open_bytes, self._open_values = [], 0, 0

    def _log_full(self) -> None:
        if not self._full_logged:
            self._full_logged = True
            logger.warning(
                "Crawled here, as the receipt is full: requests for the fleet found after the first %d, %d MB of them"
                " (%d MB compressed). Smaller batches (DISTRIBUTED_BATCH_SIZE) leave more room", self._count,
                self._bytes // 10**6, (self._packed_bytes + self._open_bytes) // 10**6,
                extra={"spider": self._diverter.spider},
            )  # fmt: skip

    def _keys_of_own(self) -> Iterator[bytes]:
        """The coordinator would drop these as well. One that is not to be filtered has another key there."""
        for request in self.own:
            if self._diverter.can_be_duplicate(request):
                with contextlib.suppress(Exception):  # a fingerprinter of the project: Scrapy reports what it raises
                    yield self._diverter.fingerprint(request)

    def _occurrence(self, key: bytes) -> int:
        self._occurrences[key] += 1
        return self._occurrences[key] - 1
