"""A batch and its attempts: their names, their states, and which follows which, by the method of the ledger.

A batch. One that is settled stays so: parts, what is tried on another node, and a retry are batches of their own::

    READY     --bind-->                         IN_FLIGHT
    IN_FLIGHT --unsent, lose, reject, settle--> READY      something is left, and no other attempt is under way
    IN_FLIGHT --settle-->                       SETTLED    nothing is left
    IN_FLIGHT --lose, reject, settle-->         SETTLED    it has died too often: halved, or what is left is dead
    IN_FLIGHT --lose-->                         SETTLED    divided: several nodes can take a part of it at once
    READY     --settle-->                       SETTLED    a lost attempt has come home, and nothing is left
    IN_FLIGHT --stop-->                         READY      nothing more of its run is crawled

An attempt::

    BOUND                --sent-->   SENT
    BOUND, SENT          --lose-->   UNKNOWN
    BOUND, SENT, UNKNOWN --unsent--> UNSENT
    BOUND, SENT, UNKNOWN --settle--> ACCEPTED
    BOUND, SENT, UNKNOWN --reject--> REJECTED
    BOUND, SENT, UNKNOWN --stop-->   REJECTED  its run was stopped
    ACCEPTED             --lose_items--> REJECTED  what has come home is lost here, and an operator says so
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import Enum

from scrapy_distributed.ledger.spooled import spool_name


class BatchState(Enum):
    """Where a closed batch is."""

    READY = "ready"
    """It waits for a node with room."""
    IN_FLIGHT = "in flight"
    """An attempt at it is under way."""
    SETTLED = "settled"
    """Every request of it is crawled, failed, filtered or dead, or has been moved to another batch."""


class AttemptState(Enum):
    """Where one job is. The first three are live: a receipt of theirs is still welcome."""

    BOUND = "bound"
    """In the ledger, and about to be posted; after a crash nobody knows whether it was."""
    SENT = "sent"
    """The node has taken it."""
    UNKNOWN = "unknown"
    """No sign of life for a lease: its requests have been given to another attempt."""
    UNSENT = "unsent"
    """It never ran: the node refused it, could not be reached, or gave it back."""
    ACCEPTED = "accepted"
    """Its final receipt counts, and so does its feed."""
    REJECTED = "rejected"
    """It ended and does not count, and neither does its feed."""


class Fate(Enum):
    """What an attempt that has ended means for its batch."""

    AGAIN = "what is not settled goes out again"
    DIVIDED = "what is not settled goes out again in parts"
    HALVED = "it has died twice: what is not settled goes out as two halves"
    DEAD = "its attempts are used up: what is not settled is dead"
    SETTLED = "all of it is settled"


class Blame(Enum):
    """Who is to blame for an attempt that does not count."""

    BATCH = "batch"
    """It died at work, so one of its requests may have killed it: that counts for the batch."""
    NODE = "node"
    """It never began, or its feed could not be stored: that counts for the batch only while some node is well."""
    NOBODY = "nobody"
    """Another attempt was first, or its node went away before it had begun."""


def label(batch: int, attempt: int) -> str:
    """The spider argument ``batch``: ``12``, then ``12.2`` for the second attempt at the same batch."""
    return str(batch) if attempt == 1 else f"{batch}.{attempt}"


def job_id(run: str, batch: int, attempt: int, token: str) -> str:
    """Scrapyd's job id: readable, sortable, safe as a file name."""
    return f"{run}-{batch:06d}-{attempt}-{token}"


def new_token() -> str:
    """What tells an attempt from every other one, also of a ledger that was put back from a copy and counts again."""
    return secrets.token_hex(4)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One job: the requests at *positions* (a bitmap, bit n for request n of the batch) on the *node* at *url*.

    *token*: that of ``new_token``. Job ids and the names of feeds have it, so a receipt or a feed is of this attempt
    or of none."""

    run: str
    batch: int
    number: int
    node: str
    url: str = ""
    token: str
    state: AttemptState
    positions: int

    @property
    def job(self) -> str:
        return job_id(self.run, self.batch, self.number, self.token)

    @property
    def label(self) -> str:
        return label(self.batch, self.number)

    @property
    def spool_name(self) -> str:
        return spool_name(self.batch, self.number, self.token)

    @property
    def size(self) -> int:
        return self.positions.bit_count()
