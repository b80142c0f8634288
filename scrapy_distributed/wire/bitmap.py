"""Positions of requests in a batch, as a bitmap: bit n for request n."""

from __future__ import annotations

from collections.abc import Iterator


def bits(bitmap: int) -> Iterator[int]:
    """The positions set in *bitmap*, lowest first."""
    while bitmap:
        lowest = bitmap & -bitmap
        yield lowest.bit_length() - 1
        bitmap ^= lowest


def bitmap_to_bytes(bitmap: int) -> bytes:
    """*bitmap* as bytes, lowest position first."""
    return bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "little")


def has_bit(data: bytes, position: int) -> bool:
    """Whether the bitmap in *data* has *position*, without making a number of all of it."""
    return position // 8 < len(data) and bool(data[position // 8] >> position % 8 & 1)


def bitmap_from_bytes(data: bytes) -> int:
    return int.from_bytes(data, "little")
