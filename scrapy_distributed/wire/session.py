"""Session <-> JSON. A session is what one jar of cookies would send with a request: ``[jar, [cookie, ...]]``, where
*jar* is the request's ``meta["cookiejar"]``, and a cookie has those attributes of ``http.cookiejar.Cookie`` that are
not the usual ones. Its id tells its content; an encoded request has it as its last attribute, ``_session``.

The cookies of a session are credentials: no message shows any of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import blake2b
from http.cookiejar import Cookie
from typing import Any, NamedTuple

from lxml.etree import _ElementUnicodeResult  # type: ignore[import-untyped]

from scrapy_distributed.errors import NotSerializableError, TooLargeError, WireError

SESSION = "_session"
MAX_SESSION = 16 * 1024  # characters: a site refuses a request whose headers are as long
_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_TEXT, _OPTIONAL = (str,), (str, type(None))
_FLAG, _COUNT = (bool,), (int, type(None))
#: The attributes of a cookie that travel: the usual value of each, and the types that it may have.
_ATTRIBUTES: dict[str, tuple[Any, tuple[type, ...]]] = {
    "name": ("", _TEXT), "value": ("", _OPTIONAL), "domain": ("", _TEXT), "path": ("/", _TEXT),
    "expires": (None, _COUNT), "secure": (False, _FLAG), "discard": (True, _FLAG), "version": (0, _COUNT),
    "domain_specified": (False, _FLAG), "domain_initial_dot": (False, _FLAG), "path_specified": (False, _FLAG),
    "port": (None, _OPTIONAL), "port_specified": (False, _FLAG), "comment": (None, _OPTIONAL),
    "comment_url": (None, _OPTIONAL), "rfc2109": (False, _FLAG), "rest": ({}, (dict,)),
}  # fmt: skip
_KEYS = (str, int, float, bool, type(None))
_TEXTS = (str, _ElementUnicodeResult)  # the text of a link is lxml's own kind, and nothing more than a text
_NAMED = re.compile(rf',"{SESSION}":"([0-9a-f]{{16}})"}}$')  # what is quoted in a text has a backslash before it


class Session(NamedTuple):
    """*id*: 16 hexadecimal digits; *text*: the JSON, in ASCII."""

    id: str
    text: str


def encode_session(jar: Any, cookies: Iterable[Cookie]) -> Session:
    """The session of *cookies* in the jar with the key *jar*. Raises ``NotSerializableError`` for a key that JSON would
    change, and ``TooLargeError``."""
    if type(jar) not in (*_KEYS, *_TEXTS):
        raise NotSerializableError(f"meta['cookiejar'] is a {type(jar).__name__}; only what JSON knows can travel")
    try:
        text = _dumps([jar, [_told(cookie) for cookie in cookies]])
    except TypeError as error:
        raise NotSerializableError(str(error)) from None
    except ValueError:
        raise NotSerializableError("a cookie has a number that JSON does not know") from None
    if len(text) > MAX_SESSION:
        raise TooLargeError(f"cookies of {len(text):,} bytes; those of a request may have {MAX_SESSION:,}")
    return Session(blake2b(text.encode("ascii"), digest_size=8).hexdigest(), text)


def decode_session(value: Any) -> tuple[Any, list[Cookie]]:
    """The key of the jar, and its cookies, of the parsed JSON of a session. Raises ``WireError``."""
    if not (isinstance(value, list) and len(value) == 2 and type(value[0]) in _KEYS and isinstance(value[1], list)):
        raise _no_session("expected a jar's key and a list of cookies")
    return value[0], [_cookie(found) for found in value[1]]


def with_session(body: str, session: str) -> str:
    """The encoded request *body*, of no session yet, as one of *session*."""
    inside = body[:-1] if body.startswith("{") else f'{{"url":{body}'
    return f'{inside},"{SESSION}":"{session}"}}'


def session_of(body: str) -> str | None:
    """The session of the encoded request *body*."""
    named = _NAMED.search(body, max(0, len(body) - len(SESSION) - 30))
    return None if named is None else named[1]


def sessions_of(bodies: Iterable[str]) -> dict[str, None]:
    """The sessions of encoded requests, each once, in the order of their first ones."""
    return {session: None for session in map(session_of, bodies) if session is not None}


def in_session(body: str, session: str) -> str:
    """*body*, which has a session, with *session* in its place."""
    return f'{body[:-18]}{session}"}}'


def _told(cookie: Cookie) -> dict[str, Any]:
    told = {}
    for name, (usual, types) in _ATTRIBUTES.items():
        value = getattr(cookie, "_rest" if name == "rest" else name)
        value = bool(value) if types is _FLAG else value  # who makes one by hand may write 1
        if type(value) not in types:
            raise TypeError(_other_type(name, value, types))
        if value != usual:
            told[name] = value
    return told


def _cookie(found: Any) -> Cookie:
    if not isinstance(found, dict) or not found.keys() <= _ATTRIBUTES.keys():
        raise _no_session("expected the attributes of a cookie")
    values = {name: found.get(name, usual) for name, (usual, _) in _ATTRIBUTES.items()}
    for name, (_, types) in _ATTRIBUTES.items():
        if type(values[name]) not in types:
            raise _no_session(_other_type(name, values[name], types))
    if values["port_specified"] and values["port"] is None:
        raise _no_session("port of a cookie: found nothing, expected numbers")
    return Cookie(**values)


def _other_type(name: str, value: Any, types: tuple[type, ...]) -> str:
    expected = " or ".join(kind.__name__ for kind in types)
    return f"{name} of a cookie: found {type(value).__name__}, expected {expected}"


def _no_session(why: str) -> WireError:
    return WireError(f"cookies of requests can't be read: {why}")
