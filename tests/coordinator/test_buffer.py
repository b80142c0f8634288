"""What a walk has found, until the server of its run has it."""

from __future__ import annotations

from scrapy_distributed.coordinator.buffer import MOST, PART, PART_BYTES, Buffer
from scrapy_distributed.wire.session import Session, with_session

JAR = Session("0123456789abcdef", "[null,[]]")


def entries(count: int, first: int = 0) -> list[tuple[bytes, str]]:
    return [(bytes([number % 256]), f'"http://a.example/{number}"') for number in range(first, first + count)]


def test_it_comes_out_in_parts_in_its_order() -> None:
    buffer = Buffer()
    buffer.put(entries(PART + 2), {})
    buffer.put_pages([b"page"])
    buffer.put(entries(1, 5000), {})
    sizes, bodies = [], []
    while part := buffer.first():
        sizes.append((len(part.entries), len(part.pages)))
        bodies += [body for _, body in part.entries]
        buffer.leave()
    assert sizes == [(PART, 0), (2, 0), (0, 1), (1, 0)]
    assert bodies == [body for _, body in [*entries(PART + 2), *entries(1, 5000)]]
    assert buffer.size == 0


def test_pages_that_yield_little_share_a_part_but_not_that_which_is_on_its_way() -> None:
    buffer = Buffer()
    for number in range(5):
        buffer.put(entries(10, 10 * number), {})
    first = buffer.first()
    assert first is not None
    assert first.size == 10
    buffer.leave()
    second = buffer.first()
    assert second is not None
    assert list(second.entries) == entries(40, 10)
    assert buffer.size == 40


def test_items_go_up_in_parts_that_are_not_too_large() -> None:
    buffer = Buffer()
    small, large = b"x\n", b"y" * (PART_BYTES - 10) + b"\n"
    items = [small] * (PART + 2) + [large, large, small]
    for item in items:
        buffer.put_item(item)
    buffer.put(entries(1), {})
    buffer.put_item(small)
    sizes, found = [], []
    while part := buffer.first():
        sizes.append(part.size)
        found += part.items
        buffer.leave()
    assert sizes == [1, PART, 2, 2, 1, 1]
    assert found == [*items, small]
    assert buffer.size == 0


def test_each_part_has_the_cookies_of_its_requests() -> None:
    buffer = Buffer()
    plain, *_ = entries(1)
    buffer.put([*entries(PART), (b"own", with_session('"http://a.example/"', JAR.id))], {JAR.id: JAR})
    parts = [buffer.first()]
    buffer.leave()
    parts.append(buffer.first())
    assert [dict(part.sessions) for part in parts if part is not None] == [{}, {JAR.id: JAR}]
    buffer.put([plain], {})
    assert buffer.size == 2


def test_it_is_full_until_enough_is_added() -> None:
    buffer = Buffer()
    buffer.put(entries(MOST - 1), {})
    assert not buffer.full
    buffer.put(entries(1), {})
    assert buffer.full
    buffer.leave()
    assert not buffer.full
