"""The targets that an attempt has found, as a ledger keeps them until they are diverted."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finds:
    """Some of the targets that an attempt has found: a line for each, of its key and of the encoded request, which has
    no line breaks."""

    size: int
    packed: bytes

    @classmethod
    def of(cls, entries: Sequence[tuple[bytes, str]]) -> Finds:
        text = "\n".join([f"{key.hex()} {body}" for key, body in entries])
        return cls(size=len(entries), packed=zlib.compress(text.encode("ascii"), 1))

    @staticmethod
    def unpacked(packed: bytes) -> list[tuple[bytes, str]]:
        """Raises ``zlib.error`` or ``ValueError`` for what is damaged."""
        lines = zlib.decompress(packed).decode("ascii").split("\n")
        return [(bytes.fromhex(key), body) for key, _, body in (line.partition(" ") for line in lines)]
