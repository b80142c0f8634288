"""What a request has come to in the end."""

from __future__ import annotations

from enum import Enum


class Outcome(str, Enum):
    """As the ledger, its commands and the stats of workers spell it; a member is equal to its value. In a text it is
    the value that is meant: what a member is there depends on the Python."""

    CRAWLED = "crawled"
    """The response came, its callback ended without error, and all that it led to on the worker has ended, too."""
    FAILED = "failed"
    """Its download, its callback or a pipeline for its items ended with an error."""
    FILTERED = "filtered"
    """Nobody was to crawl it: off-site, refused by robots.txt, a duplicate."""
    DEAD = "dead"
    """The attempts of its batch are used up."""
