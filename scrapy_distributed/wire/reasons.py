"""Why a request failed, or was filtered, in stable words."""

from __future__ import annotations

from scrapy.exceptions import IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError

from scrapy_distributed.errors import NodeRequestError
from scrapy_distributed.wire.outcome import Outcome

TO_A_NODE = "a node of the fleet"
DUPLICATE = "duplicate"  # the dupe filter of a worker has left it out
MAX_REASON = 200  # characters: it is stored with each of its requests, and names of exceptions have any length
# Exceptions by the name of their class: it differs between download handlers and releases of Scrapy.
REASONS = {
    "DNSLookupError": "dns",
    "CannotResolveHostError": "dns",
    "TimeoutError": "timeout",
    "TCPTimedOutError": "timeout",
    "DownloadTimeoutError": "timeout",
    "ConnectionRefusedError": "refused",
    "DownloadConnectionRefusedError": "refused",
    "ResponseNeverReceived": "connection lost",
    "ConnectionLost": "connection lost",
    "ConnectionDone": "connection lost",
    "ResponseDataLossError": "connection lost",
    "ResponseFailed": "connection lost",
    "DownloadFailedError": "connection lost",
    "UnsupportedURLSchemeError": "unsupported scheme",
    "NotSupported": "unsupported scheme",
}


def is_of_callback(reason: str) -> bool:
    """Whether a callback has raised."""
    return reason.startswith("callback ")


def reason_of(error: BaseException) -> tuple[Outcome, str]:
    """Outcome and reason, in stable words, of a request whose download or input ended with *error*."""
    if isinstance(error, HttpError):
        return Outcome.FAILED, f"http {error.response.status}"
    if isinstance(error, NodeRequestError):
        return Outcome.FILTERED, TO_A_NODE
    if isinstance(error, IgnoreRequest):
        text = str(error)
        if "robots.txt" in text:
            return Outcome.FILTERED, "robots.txt"
        if "offsite" in text:
            return Outcome.FILTERED, "offsite"
        return (Outcome.FAILED, "too many redirects") if "redirections" in text else (Outcome.FILTERED, "ignored")
    name = type(error).__name__
    return Outcome.FAILED, REASONS.get(name, f"download {name}")
