"""Why a request failed, or was filtered, in stable words."""

from __future__ import annotations

from scrapy.exceptions import IgnoreRequest
from scrapy.spidermiddlewares.httperror import HttpError

from scrapy_distributed.errors import NodeRequestError

TO_A_NODE = "a node of the fleet"
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


def reason_of(error: BaseException) -> tuple[str, str]:
    """State and reason, in stable words, of a request whose download or input ended with *error*."""
    if isinstance(error, HttpError):
        return "failed", f"http {error.response.status}"
    if isinstance(error, NodeRequestError):
        return "filtered", TO_A_NODE
    if isinstance(error, IgnoreRequest):
        text = str(error)
        if "robots.txt" in text:
            return "filtered", "robots.txt"
        if "offsite" in text:
            return "filtered", "offsite"
        return ("failed", "too many redirects") if "redirections" in text else ("filtered", "ignored")
    name = type(error).__name__
    return "failed", REASONS.get(name, f"download {name}")
