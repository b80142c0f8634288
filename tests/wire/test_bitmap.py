"""Positions as a bitmap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes, bits


@given(st.sets(st.integers(0, 3000)))
def test_a_bitmap_holds_positions_in_order(positions: set[int]) -> None:
    bitmap = sum(1 << position for position in positions)
    assert list(bits(bitmap)) == sorted(positions)
    assert bitmap_from_bytes(bitmap_to_bytes(bitmap)) == bitmap


def test_a_bitmap_of_nothing_takes_no_bytes() -> None:
    assert bitmap_to_bytes(0) == b""
    assert bitmap_to_bytes(0b1_0000_0001) == b"\x01\x01"
