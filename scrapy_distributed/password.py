"""Passwords in the URLs of feeds: they are kept out of logs, receipts and messages."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit, urlunsplit

#: What of Scrapy writes the URLs of feeds into the log: ``FEED_URI`` among the settings, and what became of each file.
LOGGERS = ("scrapy.crawler", "scrapy.extensions.feedexport")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_FILLED_IN_LATER = re.compile(r":%\([^)]+\)s@")


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


def without_passwords(text: str) -> str:
    """*text* with every URL in it without its password."""
    return _URL.sub(lambda found: without_password(found[0]), text)


def has_password(url: str) -> bool:
    """Whether *url* shows a password. A placeholder, ``%(name)s``, is none: it is filled in on the worker."""
    bare = _FILLED_IN_LATER.sub("@", url)
    return without_password(bare) != bare


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (shown := without_passwords(message)) != message:
            record.msg, record.args = shown, ()
        if record.exc_info and not record.exc_text:  # a formatter would do so, and keep it
            record.exc_text = without_passwords(logging.Formatter().formatException(record.exc_info))
        return True


_FILTER = _Filter()


def hide_in_log() -> None:
    """From here on ``LOGGERS`` of this process log no password. At a second call nothing changes."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
