"""Requests that may be new, as the server is told of them."""

from __future__ import annotations

import secrets

import pytest

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.shared.finds import Find, pack, portions, unpack
from scrapy_distributed.shared.portion import MOST_BYTES, SIZE
from scrapy_distributed.shared.portion import unpack as requests_of
from scrapy_distributed.wire.seen_key import seen_key


def found(*numbers: int) -> list[Find]:
    return [(seen_key(b"%d" % number), f'"http://a/{number}"') for number in numbers]


def bodies(*numbers: int) -> list[str]:
    return [body for _, body in found(*numbers)]


def keys(*numbers: int) -> bytes:
    return b"".join(key for key, _ in found(*numbers))


def test_all_of_a_call_is_told_with_all_keys_as_one_text() -> None:
    skipped, (text, size, data), last, own = portions(found(1, 2, 1))
    assert (skipped, text, size, own) == (0, keys(1, 2, 1), 3, 3)
    assert requests_of(data) == last == bodies(1, 2, 1)


def test_nothing_is_in_no_portion() -> None:
    assert portions([]) == (0, [b""], (), 0)


def test_the_first_portion_begins_with_the_tail_and_the_last_one_may_be_the_next_tail() -> None:
    tail = bodies(*range(1000, 1000 + SIZE - 3))
    skipped, (_, first, grown, second, data), last, own = portions(found(*range(SIZE + 10)), tail)
    assert (skipped, first, second, own) == (SIZE - 3, 3, SIZE + 7, SIZE + 7)
    assert requests_of(grown) == [*tail, *bodies(0, 1, 2)]
    assert requests_of(data) == last == bodies(*range(3, SIZE + 10))


def test_few_that_are_left_go_with_the_portion_before() -> None:
    tail = bodies(*range(1000, 1000 + SIZE - 3))
    _, (_, size, data), last, own = portions(found(*range(10)), tail)
    assert (size, own) == (10, 10)
    assert requests_of(data) == last == [*tail, *bodies(*range(10))]


def test_where_there_is_no_room_beside_the_tail_it_does_not_grow() -> None:
    long = [f'"http://a/{secrets.token_hex(MOST_BYTES)}"' for _ in range(2)]
    skipped, (_, size, data), _, own = portions([(seen_key(b"1"), long[1])], long[:1])
    assert (skipped, size, own, requests_of(data)) == (0, 1, 1, long[1:])


def test_what_a_worker_has_found_comes_out_as_it_went_in() -> None:
    assert unpack(pack(found(1, 2, 3))) == found(1, 2, 3)
    assert unpack(b"") == []


@pytest.mark.parametrize("data", [pack(found(1, 2))[:-1], pack(found(1)) + b"x", b"k" * 12 + b"\1\0\0\0\xff"])
def test_what_is_damaged_of_it_is_told_so(data: bytes) -> None:
    with pytest.raises(LedgerError, match="damaged: requests that a worker has found"):
        unpack(data)
