"""An attempt under way, and what is known of its job. Times are the clock's seconds."""

from __future__ import annotations

from dataclasses import dataclass

from scrapy_distributed.ledger.states import Attempt


@dataclass(kw_only=True, eq=False)
class Flight:
    """An attempt under way, sent at *sent_at*. *evidence* is the time of its last sign of life."""

    attempt: Attempt
    sent_at: float
    evidence: float
    looked_at: float = float("-inf")
    trial: bool = False  # to see whether a member that has failed works again
    confirmed: bool = False  # the node has said that it has it
    pending: bool = False  # the node said so when it was asked last
    started: bool = False
    at_work: bool = False  # a receipt of it tells of something done
    sequence: int = 0  # of its newest receipt
    activity: int = -1  # what it had done by then
    active_at: float = 0.0  # when that grew last
    stalled: bool = False  # it writes receipts and does nothing
    lost: bool = False  # its requests have gone to another attempt; a final receipt still counts if it comes first
    fenced: bool = False  # it can't count any more, and is only to be ended
    signalled_at: float | None = None  # it was told to end while it ran
    killed: bool = False
    unreadable: int = 0  # how often a receipt of it made no sense
    refused: bool = False  # the node has said no to a question about it, and the log tells
    overtaken: int = 0  # jobs that this node got later and that are over
    old: bool = False  # it is under way for suspiciously long, and the log tells

    @property
    def starting(self) -> bool:
        """Its process runs, and has not written a receipt yet."""
        return self.started and not self.sequence

    @property
    def waiting(self) -> bool:
        return not (self.started or self.lost or self.fenced)
