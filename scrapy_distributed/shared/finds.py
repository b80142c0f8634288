"""Requests that may be new: how they are told to the server, by who has found them here, or on a worker."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.portion import divide
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.wire.seen_key import KEY_BYTES

Find = tuple[bytes, str]  # its ``seen_key`` and the encoded request
_LENGTH = struct.Struct("<I")


class Finds:
    """*finds* of one call, each key once. *flags*: for each whether it may be new; it is not where the server has
    ``told`` so. *tail*: the requests of the portion that comes before, which grows if it still can."""

    def __init__(self, finds: Sequence[Find], tail: Sequence[str] = ()) -> None:
        first = {key: position for position, (key, _) in reversed([*enumerate(finds)])}
        self.finds = finds
        self.flags = [first[key] == position for position, (key, _) in enumerate(finds)]
        self.tail = tail
        self.last: Sequence[str] = ()  # the requests of the last portion

    def told(self, known: Sequence[int]) -> None:
        """Those whose flag is set in *known*, one for each that might have been new, are not."""
        positions = [position for position, may_be_new in enumerate(self.flags) if may_be_new]
        for position, is_known in zip(positions, known, strict=True):
            self.flags[position] = not is_known

    def args(self) -> list[Value]:
        """As ``take_in`` of the scripts reads it."""
        new = [find for find, may_be_new in zip(self.finds, self.flags, strict=True) if may_be_new]
        bodies = [body for _, body in new]
        portions = [*divide([*self.tail, *bodies])]
        if self.tail and len(portions[0][0]) <= len(self.tail):  # long ones: there is no room beside them
            self.tail = ()
            portions = [*divide(bodies)]
        self.last = portions[-1][0] if portions else ()
        sizes = [len(some) for some, _ in portions]
        if portions:
            sizes[0] -= len(self.tail)
        pairs = [value for size, (_, data) in zip(sizes, portions, strict=True) for value in (size, data)]
        return [len(self.finds) - len(new), b"".join([key for key, _ in new]), *pairs]


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
    head, data = answer
    finds = Finds(unpack(data))
    while isinstance(answer := await server.script("move", keys, run, head, *finds.args()), list):
        finds.told(answer)
    return int(answer)
