"""The open batch, counted."""

from __future__ import annotations

from scrapy_distributed.coordinator.open_batch import OpenBatch


def opened(size: int | None = 3, max_bytes: int = 1000, max_age: float = 10) -> OpenBatch:
    return OpenBatch(size=size, max_bytes=max_bytes, max_age=max_age)


def test_a_batch_is_full_when_it_has_its_size() -> None:
    open_batch = opened()
    open_batch.add(2, 2, 0)
    assert open_batch.full == []
    open_batch.add(5, 5, 0)
    assert open_batch.full == [3, 3]
    open_batch.leave(6, 6)
    assert (open_batch.full, open_batch.count) == ([], 1)


def test_without_a_size_none_is_full() -> None:
    open_batch = opened(size=None)
    open_batch.add(100, 100, 0)
    assert open_batch.full == []


def test_the_bytes_that_have_left_do_not_count() -> None:
    open_batch = opened(size=2, max_bytes=10)
    open_batch.add(2, 9, 0)
    assert not open_batch.too_long
    open_batch.add(1, 1, 0)
    assert open_batch.too_long
    open_batch.leave(2, 9)
    assert not open_batch.too_long


def test_a_batch_is_overdue_by_the_age_of_its_first_request() -> None:
    open_batch = opened()
    assert not open_batch.overdue(1e9)
    open_batch.add(0, 0, 0)
    assert not open_batch.overdue(1e9)
    open_batch.add(1, 1, 5)
    open_batch.add(1, 1, 14)
    assert not open_batch.overdue(14.9)
    assert open_batch.overdue(15)
    open_batch.leave(2, 2)
    assert not open_batch.overdue(15)
    open_batch.add(1, 1, 20)
    assert not open_batch.overdue(29.9)


def test_what_a_full_batch_leaves_over_is_as_old_as_itself() -> None:
    open_batch = opened()
    open_batch.add(2, 2, 0)
    open_batch.add(2, 2, 9)
    open_batch.leave(3, 3)
    assert not open_batch.overdue(18.9)
    assert open_batch.overdue(19)
