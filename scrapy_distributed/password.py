"""Passwords in the URLs of feeds, and other secrets: they are kept out of logs, receipts and messages."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit, urlunsplit

#: Last words of names, in any case, whose values are not for others.
SECRET_WORDS = frozenset({"KEY", "APIKEY", "SECRET", "PASS", "PASSWD", "PASSWORD", "TOKEN"})
#: What writes the URLs of feeds into the log: ``FEED_URI`` among the settings, what became of each file, and the errors
#: of a storage that could not be made or opened. Not the root: each line of each page would pass a filter there.
LOGGERS = ("scrapy.crawler", "scrapy.extensions.feedexport", "scrapy.utils.signal", "asyncio", "twisted")
#: What to do about a feed URL that ``is_ambiguous``.
QUOTE = (
    "a feed URL whose password, if it has one, can be told from its path: no / ? # [ ] < > quote or blank beside a :"
    " before an @. In a user or a password write %%2F %%3F %%23 %%40 (two %, for Scrapy fills in placeholders), or let"
    " the nodes fill it in, see Where items land in the README; in a path leave the @ out"
)
# Scheme and end are bounded, so that a text of any length takes a time in proportion. A quote alone is no end: it may
# be in a password that Scrapy has been given as it is.
_URL = re.compile(r"""[a-z][a-z0-9+.-]{0,30}://\S+?(?=["'<>](?:[],:;)}\s]|$)|\s|$)""", re.IGNORECASE)
_PORT = re.compile(r"(Port could not be cast to integer value as ).*")  # urllib quotes half a password there
_SCHEME = re.compile(r"^(?:file:|[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_QUOTED_ONLY = re.compile(r"""[\s/?#\[\]<>"']""")
_FILLED_IN_LATER = re.compile(r":%\([^)]+\)s@")


def is_secret(name: str) -> bool:
    """Whether the value of a setting or an argument of that name is not for others to see."""
    return name.upper().rpartition("_")[2] in SECRET_WORDS


def is_ambiguous(url: str) -> bool:
    """Whether nobody can tell a password in *url* from its path: ``ftp://u:12/34@h/x`` may be a file on port 12, too.

    Scrapy takes it for one, or says in an error which part of the password is no port.
    """
    before = _SCHEME.sub("", url.rpartition("@")[0])
    return ":" in before and not before.startswith("/") and bool(_QUOTED_ONLY.search(before))


def without_password(url: str) -> str:
    """*url* without its password; the user stays, if it can be told from the rest."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it checks it
        readable = not is_ambiguous(url)
    except ValueError:
        readable = False
    if not readable:
        before, _, after = url.rpartition("@")
        scheme, mark, _ = before.partition("://")
        return scheme + mark + after if mark else after
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def without_passwords(text: str) -> str:
    """*text* with every URL in it without its password."""
    return _PORT.sub(r"\1(hidden)", _URL.sub(lambda found: without_password(found[0]), text))


def has_password(url: str) -> bool:
    """Whether *url* shows what may be a password. A placeholder, ``%(name)s``, is none: it is filled in on the
    worker."""
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
