"""Many encoded requests <-> bytes. A script can take them apart at no place: it hands on whole portions, with the part
that is meant."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from scrapy_distributed.errors import LedgerUnavailableError

SIZE = 100  # requests, or up to twice as many where fewer than that were left; ten times as many save a tenth more
MOST_BYTES = 100_000  # of a portion: of a batch so long the payload still fits into an argument
PACKED, PLAIN = b"z", b"p"  # the first byte; plain ones are made in scripts


def pack(bodies: Sequence[str]) -> bytes:
    """*bodies*: ASCII, without line breaks."""
    return PACKED + zlib.compress("\n".join(bodies).encode("ascii"))


def divide(bodies: Sequence[str]) -> Iterator[tuple[Sequence[str], bytes]]:
    """*bodies* in portions: the requests of each, and these packed."""
    first = 0
    while first < len(bodies):
        left = len(bodies) - first
        some = bodies[first : first + (SIZE if left >= 2 * SIZE else left)]
        while len(data := pack(some)) > MOST_BYTES and len(some) > 1:
            some = some[: len(some) // 2]
        yield some, data
        first += len(some)


def unpack(data: bytes) -> list[str]:
    """Raises ``LedgerUnavailableError`` for what is damaged."""
    try:
        kind, rest = data[:1], data[1:]
        if kind not in (PACKED, PLAIN):
            raise ValueError(f"found {data[:20]!r}, expected a portion of requests")
        return (zlib.decompress(rest) if kind == PACKED else rest).decode("ascii").split("\n")
    except (ValueError, zlib.error) as error:
        raise LedgerUnavailableError(f"damaged: requests of a batch: {error}") from None


def bodies_of(parts: Sequence[bytes], portions: Sequence[bytes]) -> list[str]:
    """The requests of a batch: *parts* ``id:first:size``, each of one of *portions*; b"": of that before."""
    bodies: list[str] = []
    requests: list[str] = []
    for part, data in zip(parts, portions, strict=True):
        _, first, size = map(int, part.split(b":"))
        requests = unpack(data) if data else requests
        bodies += requests[first : first + size]
    return bodies
