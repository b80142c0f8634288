"""Batch <-> setting value, and the byte ceiling.

A batch is a JSON array of requests (``wire.request``), or, where any has a session, an object: ``requests`` is that
array, and ``sessions`` has each of their sessions once (``wire.session``), by its id. As a setting value it is plain
JSON while it is short, else ``zb85:`` and base85 of the zlib-compressed JSON.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scrapy_distributed.errors import TooLargeError, WireError
from scrapy_distributed.wire.session import MAX_SESSION, sessions_of
from scrapy_distributed.words import escaped

START_URL = "DISTRIBUTED_START_URL"
SLOT_FREE_SINCE = "DISTRIBUTED_SLOT_FREE_SINCE"
NEVER_USED = 1  # is a slot that is free since then
# Linux refuses a command with a longer argument (MAX_ARG_STRLEN, 32 pages, less the final NUL), and a Scrapyd that
# tries to start one loses that process slot until it is restarted.
MAX_ARGUMENT_BYTES = 131_071
MAX_VALUE_BYTES = MAX_ARGUMENT_BYTES - len(START_URL) - 1
PLAIN_BYTES = 2_048
MAX_JSON_BYTES = 16 * 1024 * 1024  # of one batch, unpacked: parsed, it may take 25 times as much memory
MAX_FOUND = 200  # characters of what was found, in a message
PREFIX = "zb85:"
_NONE: Mapping[str, str] = MappingProxyType({})


def encode_payload(bodies: Sequence[str], sessions: Mapping[str, str] = _NONE) -> str:
    """The setting value of a batch of encoded requests, and of their encoded *sessions* by id. ASCII, without NUL; its
    length in bytes is its length."""
    text = f"[{','.join(bodies)}]"
    if sessions:
        named = ",".join([f'"{session}":{text}' for session, text in sessions.items()])
        text = f'{{"requests":{text},"sessions":{{{named}}}}}'
    if len(text) <= PLAIN_BYTES:
        return text
    return PREFIX + base64.b85encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def decode_payload(value: Any) -> list[Any]:
    """The elements of a batch. Raises ``WireError``."""
    return decode_batch(value)[0]


def decode_batch(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """The elements of a batch, and the parsed JSON of their sessions by id. Raises ``WireError``."""
    if isinstance(value, list | tuple):
        return list(value), {}  # set in Python, by hand
    if not isinstance(value, str):
        raise WireError(f"{START_URL}: found {type(value).__name__}, expected a JSON list of URLs or requests")
    text = unpacked(value)
    if not text.startswith("{"):
        return elements_of(text), {}
    try:
        batch = loads(text)
    except (ValueError, RecursionError):
        batch = {}
    elements, sessions = batch.get("requests"), batch.get("sessions")
    if len(batch) != 2 or not isinstance(elements, list) or not isinstance(sessions, dict):
        # What was found is not shown: there are cookies in it.
        raise WireError(f"{START_URL}: found an object that is no batch, expected its requests and their sessions")
    return elements, sessions


def unpacked(value: str) -> str:
    """The JSON of a payload. Raises ``WireError``."""
    try:
        return _unpack(value).decode() if value.startswith(PREFIX) else value
    except (ValueError, zlib.error) as error:
        raise _no_payload(value, error) from None


def elements_of(text: str, *, most_values: int | None = None) -> list[Any]:
    """The elements in the JSON of a payload. Raises ``WireError``, also for more than *most_values* in all of them, and
    that before they are made: parsed, each may take 64 bytes."""
    try:
        if most_values is not None and values_in(text) > most_values:
            raise ValueError(f"more than {most_values:,} values")
        elements = loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_payload(text, error) from None
    if not isinstance(elements, list):
        raise WireError(f"{START_URL}: found a JSON {type(elements).__name__}, expected a list of URLs or requests")
    return elements


def _no_payload(value: str, error: Exception) -> WireError:
    found = value if len(value) <= 60 else value[:60] + "..."
    return WireError(f"{START_URL}: found {found!r}, expected a JSON list of URLs or requests ({error})")


def values_in(text: str) -> int:
    """As many values as the JSON in *text* may have at most, without a look at what is in quotes."""
    return text.count(",") + text.count("[") + text.count("{")


def fits(value: str) -> bool:
    """Whether *value* may travel to a node as ``DISTRIBUTED_START_URL``."""
    return len(value) <= MAX_VALUE_BYTES


def check_size(body: str, *, session: bool = False) -> None:
    """Raises ``TooLargeError`` for an encoded request that is over the ceiling even alone in its batch, or with the
    longest *session*: which one it has is decided when its batch is cut."""
    taken = 2 * MAX_SESSION if session else 0  # compressed or not, none takes more
    room = MAX_VALUE_BYTES - taken
    length = len(body) + 2
    if length > room and (length > MAX_JSON_BYTES - taken or len(encode_payload([body])) > room):
        raise TooLargeError(f"a request of {len(body):,} bytes; alone in a batch it may have {room:,}")


def split(bodies: Sequence[str], sessions: Mapping[str, str] = _NONE) -> Iterator[tuple[Sequence[str], str]]:
    """Cut *bodies* into runs whose payload is under the ceiling; yields (bodies, payload), none of them empty.

    *sessions*: all that they have, by id. Every one of *bodies* must have passed ``check_size``.
    """
    if not bodies:
        return
    own = {session: sessions[session] for session in sessions_of(bodies)} if sessions else _NONE
    length = sum(map(len, bodies)) + len(bodies) + sum(len(session) + 32 for session in own.values())
    if len(bodies) == 1 or length < MAX_JSON_BYTES:
        payload = encode_payload(bodies, own)
        if fits(payload):
            yield bodies, payload
            return
    middle = len(bodies) // 2
    if not middle:
        raise TooLargeError(f"a request of {len(bodies[0]):,} bytes")
    yield from split(bodies[:middle], sessions)
    yield from split(bodies[middle:], sessions)


def url_of(element: Any) -> str:
    """The URL of one element of a batch."""
    return element if isinstance(element, str) else str(element["url"])


def _unpack(value: str) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(base64.b85decode(value[len(PREFIX) :]), MAX_JSON_BYTES + 1024)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"cut off, with something behind its end, or larger than {MAX_JSON_BYTES:,} bytes")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Readers differ on which of two values of one name they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"two values for {found_text(twice)}")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


loads = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number).decode


def found_text(text: str) -> str:
    """*text* for a message: printable, and cut where it would flood a log."""
    shown = escaped(text[:MAX_FOUND])
    return shown if len(text) <= MAX_FOUND else f"{shown}..."
