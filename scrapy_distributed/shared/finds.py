"""Requests that may be new: how they are told to the server, by who has found them here, or on a worker."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.portion import divide
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.wire.seen_key import KEY_BYTES

Find = tuple[bytes, str]  # its ``seen_key`` and the encoded request
_LENGTH = struct.Struct("<I")


class Portions(NamedTuple):
    """Requests of one call in portions. *args*: as ``take_in`` of the scripts reads them; the first portion begins with
    *skipped* requests of the one before. *last*: the requests of the last portion, *own* of which are of this call."""

    skipped: int
    args: list[Value]
    last: Sequence[str]
    own: int


def portions(finds: Sequence[Find], tail: Sequence[str] = ()) -> Portions:
    """*tail*: the requests of the portion that comes before, which grows if it still can."""
    bodies = [body for _, body in finds]
    divided = [*divide([*tail, *bodies])]
    if tail and len(divided[0][0]) <= len(tail):  # long ones: there is no room beside them
        return portions(finds)
    sizes = [len(some) for some, _ in divided] or [0]
    sizes[0] -= len(tail)
    args: list[Value] = [b"".join([key for key, _ in finds])]
    for size, (_, data) in zip(sizes, divided, strict=False):
        args += (size, data)
    return Portions(len(tail), args, divided[-1][0] if divided else (), sizes[-1])


def pack(finds: Sequence[Find]) -> bytes:
    """As workers stage them."""
    return b"".join(key + _LENGTH.pack(len(body)) + body.encode("ascii") for key, body in finds)


def unpack(data: bytes) -> list[Find]:
    """Raises ``LedgerError`` for what is damaged."""
    finds, at = [], 0
    try:
        while at < len(data):
            start = at + KEY_BYTES + _LENGTH.size
            (length,) = _LENGTH.unpack_from(data, at + KEY_BYTES)
            finds.append((data[at : at + KEY_BYTES], data[start : start + length].decode("ascii")))
            at = start + length
        if at > len(data):
            raise ValueError(f"{at - len(data)} bytes are missing")
    except (struct.error, ValueError) as error:
        raise LedgerError(f"damaged: requests that a worker has found: {error}") from None
    return finds


async def move(server: Server, keys: Keys, run: str) -> int:
    """Add the first part of what accepted attempts of *run* have found. Returns how many parts are left."""
    answer = await server.script("moving", keys, run)
    if answer is None:
        return 0
    head, data, known = answer
    fresh = [find for find, flag in zip(unpack(data), known, strict=True) if flag == ord("0")]
    left: int = await server.script("move", keys, run, head, len(known) - len(fresh), *portions(fresh).args)
    return left
