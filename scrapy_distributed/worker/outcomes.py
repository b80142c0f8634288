"""What has become of the start requests of a worker: crawled, failed or filtered, and why. Pure."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.reasons import DUPLICATE, MAX_REASON
from scrapy_distributed.wire.receipt import MAX_EXAMPLES, MAX_REASONS
from scrapy_distributed.words import shortened

LOST = "lost on the worker"


class Outcomes:
    """What has become of *size* start requests. Pure; positions are 0 to *size* - 1.

    A start request is settled when it has begun and no request that it led to is open. Its items may still be in a
    pipeline then; a crawl that closes waits for them, so a final receipt knows their errors.

    A request further down that fails is only counted, or with *follow_up_fails* its start request has failed, too.
    """

    def __init__(self, size: int, *, follow_up_fails: bool = False) -> None:
        self.size = size
        self.follow_up_fails = follow_up_fails
        self.settled = 0  # bitmap
        self.noted: dict[int, tuple[Outcome, str]] = {}  # position -> outcome, reason; without one it is crawled
        self.followed: Counter[tuple[Outcome, str]] = Counter()  # outcome and reason of what ended so further down
        self.examples: dict[str, str] = {}  # reason -> what the first error said, and where
        self.landed: dict[int, str] = {}  # position -> key of the page to which a start request was redirected
        self._open = [0] * size
        self._live: dict[int, int] = {}  # serial of a ticket -> position
        self._serial = size
        self._started = 0  # bitmaps, as the next two
        self._with_items = 0
        self._with_output = 0  # items, or requests
        self._early = 0  # failed before their callback
        self.steps = 0  # grows with whatever happens

    def start(self, position: int) -> tuple[int, int]:
        """The ticket of the start request at *position*: its serial is the position."""
        self.steps += 1
        self._started |= 1 << position
        self._live[position] = position
        self._open[position] += 1
        return position, position

    def follow(self, position: int) -> tuple[int, int]:
        """The ticket of a request that the one at *position* has led to."""
        self._put_out(position)
        self._serial += 1
        self._live[self._serial] = position
        self._open[position] += 1
        self.settled &= ~(1 << position)
        return position, self._serial

    def found(self, position: int) -> None:
        """The start request at *position* has led to a request that is not crawled here."""
        self._put_out(position)

    def item(self, position: int) -> None:
        """The start request at *position* has led to an item."""
        self._put_out(position)
        self._with_items |= 1 << position

    def note(
        self, ticket: tuple[int, int], outcome: Outcome, reason: str, *, early: bool = False, example: str = ""
    ) -> None:
        """How the request of *ticket* has failed or was filtered; *early*: before its callback; *example*: what the
        error said, and where. The first note wins."""
        position, serial = ticket
        reason = shortened(reason, MAX_REASON)
        if serial == position:
            if position not in self.noted:
                self.noted[position] = outcome, reason
                self._note_example(reason, example)
                if early and outcome == Outcome.FAILED:
                    self._early |= 1 << position
        elif serial in self._live:
            self.followed[outcome, reason] += 1
            self._note_example(reason, example)
            if self.follow_up_fails and outcome == Outcome.FAILED:
                self.fail(position, f"followed {reason}")

    def fail(self, position: int, reason: str) -> None:
        """The start request at *position* has failed, whatever has become of its pages."""
        self.noted.setdefault(position, (Outcome.FAILED, shortened(reason, MAX_REASON)))

    def end(self, ticket: tuple[int, int]) -> None:
        """The request of *ticket* is over. Any number of times."""
        if self._live.pop(ticket[1], None) is not None:
            self.steps += 1
            self._open[ticket[0]] -= 1
            if not self._open[ticket[0]]:
                self.settled |= 1 << ticket[0]

    def is_open(self, ticket: tuple[int, int]) -> bool:
        return ticket[1] in self._live

    @property
    def open(self) -> bool:
        """Whether a request is under way, or went astray."""
        return bool(self._live)

    def lose_open(self) -> None:
        """The crawl has finished with nothing to do: what is still open went astray, e.g. in another middleware. What
        the crawl has never been given, as its start has failed, did not."""
        for position in bits(self._started & ~self.settled):
            self.noted.setdefault(position, (Outcome.FAILED, LOST))
            self.settled |= 1 << position

    def reopen_duplicates(self) -> None:
        """The crawl ends early: a start request that was left out, as another has led to its page, is not settled where
        that other may not be."""
        for position in [position for position, noted in self.noted.items() if noted == (Outcome.FILTERED, DUPLICATE)]:
            del self.noted[position]
            self.settled &= ~(1 << position)

    @property
    def clean(self) -> bool:
        """Whether every item in the feed is of a settled request."""
        return not self._with_items & ~self.settled

    @property
    def again(self) -> int:
        """Bitmap of the failed requests of which nothing is in a feed or on its way: they may be tried elsewhere."""
        return self._early & self.settled & ~self._with_output

    def failed_follow_ups(self) -> dict[str, int]:
        """Reason to number, the most frequent first."""
        most = self.followed.most_common()
        return {reason: count for (outcome, reason), count in most if outcome == Outcome.FAILED}

    def by_reason(self, outcome: Outcome) -> dict[str, list[int]]:
        reasons: dict[str, list[int]] = {}
        for position, (noted, reason) in self.noted.items():
            if noted == outcome and self.settled >> position & 1:
                reasons.setdefault(reason, []).append(position)
        return reasons

    def reported_examples(self) -> dict[str, str]:
        """Those of reasons that are reported, as many as a receipt may have."""
        reasons = {*self.by_reason(Outcome.FAILED), *islice(self.failed_follow_ups(), MAX_REASONS)}
        reported = ((reason, example) for reason, example in self.examples.items() if reason in reasons)
        return dict(islice(reported, MAX_EXAMPLES))

    def _note_example(self, reason: str, example: str) -> None:
        if example and len(self.examples) < MAX_REASONS:
            self.examples.setdefault(reason, example)

    def _put_out(self, position: int) -> None:
        self.steps += 1
        self._with_output |= 1 << position
