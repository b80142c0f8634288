"""What can go wrong, split by what the caller does next.

DistributedError
├── ConfigError           a setting or a command line is wrong: the crawl does not start
│   └── FleetUnusableError     no node can be used now: the same command may work later
├── WireError             a request or a payload can't be encoded or decoded
│   ├── NotSerializableError   this request can't travel: crawl it here
│   └── TooLargeError          this request alone is over the ceiling: crawl it here
├── NodeRequestError      a request of the crawl would go to a node: drop it
├── LedgerError           the ledger can't be used: stop, nothing was changed
├── LedgerUnavailableError  it can't be read or written now: try again, or close the crawl
└── NodeError             one Scrapyd did not do what was asked
    ├── NodeUnreachableError   nothing was sent: try another node
    │   └── NodeDownError          nothing listens there: what runs there may be over
    ├── NodeRefusedError       the node said no: try another node, tell the user why
    │   ├── NodeUnauthorizedError  it wants other credentials: the node itself is there
    │   ├── ScrapydRefusedError    Scrapyd has looked at what was asked, and not a proxy before it
    │   ├── NodeTooLongError       what it has to say is more than is read: do without
    │   └── NodeItemsError         it does not have the items that a receipt tells of: that attempt does not count
    └── NodeAmbiguousError     it may or may not have been done: ask the node
"""

from __future__ import annotations

from scrapy.exceptions import IgnoreRequest


class DistributedError(Exception):
    """Root of everything that this package raises on purpose."""


class ConfigError(DistributedError, ValueError):
    """A setting or a command line is wrong. A ``ValueError``, so that Scrapy does not start the crawl:
    ``NotConfigured`` would let it go on without us, a crawl on one machine that nobody asked for."""


class FleetUnusableError(ConfigError):
    """No node can be used, and at least one may work again by itself."""


class WireError(DistributedError, ValueError):
    """A request or a payload can't be encoded or decoded."""


class NotSerializableError(WireError):
    """The request holds something that JSON or the worker's spider does not know."""


class TooLargeError(WireError):
    """The request alone is larger than one command-line argument may be."""


class NodeRequestError(DistributedError, IgnoreRequest):
    """A request of the crawl would go to a node of the fleet. For Scrapy one that a middleware has chosen to ignore."""


class LedgerError(DistributedError):
    """The ledger can't be used: locked by another coordinator, of another format, or damaged."""


class LedgerHeldError(LedgerError):
    """A coordinator uses the ledger."""


class LedgerUnavailableError(DistributedError):
    """The ledger can't be read or written now: a full disk, say. What was asked for was not done."""


class NodeError(DistributedError):
    """One Scrapyd did not do what was asked. *node* is its name, never its credentials."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"{node}: {message}")
        self.node = node


class NodeUnreachableError(NodeError):
    """Nothing was sent: no such host, connection refused, no TLS."""


class NodeDownError(NodeUnreachableError):
    """The connection was refused: the machine is there, and nothing listens at this port."""


class NodeRefusedError(NodeError):
    """The node answered, and the answer is no: what was asked was not done."""


class NodeUnauthorizedError(NodeRefusedError):
    """The node answered that it wants other credentials."""


class ScrapydRefusedError(NodeRefusedError):
    """Scrapyd itself said no: it has looked at what was asked."""


class NodeTooLongError(NodeRefusedError):
    """What was asked for is there, and too long to be read. Nothing is wrong with the node."""


class NodeItemsError(NodeRefusedError):
    """The file of a job's items is not there, or not the one that its final receipt tells of: another length, other
    bytes. To ask again is of no use, and nothing is wrong with the node."""


class NodeAmbiguousError(NodeError):
    """The request went out and no usable answer came: a timeout, a dropped line, an error page.
    It may have been done, and a request that timed out can still be carried out later."""
