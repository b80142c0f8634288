"""The open batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.coordinator.batcher import Batcher


def batcher(size: int = 3, max_bytes: int = 1000, max_age: float = 10) -> Batcher:
    return Batcher(size=size, max_bytes=max_bytes, max_age=max_age)


def test_a_batch_closes_when_it_is_full_and_the_rest_stays_open() -> None:
    open_batch = batcher()
    open_batch.add(["1", "2"], 0)
    assert open_batch.take_full() == []
    open_batch.add(["3", "4", "5", "6", "7"], 0)
    assert open_batch.take_full() == [["1", "2", "3"], ["4", "5", "6"]]
    assert open_batch.bodies == ["7"]
    assert open_batch.take_all() == [["7"]]
    assert open_batch.take_all() == []


def test_a_batch_closes_at_its_bytes() -> None:
    open_batch = batcher(size=100, max_bytes=10)
    open_batch.add(["123456789"], 0)
    assert open_batch.take_full() == []
    open_batch.add(["1"], 0)
    assert open_batch.take_full() == [["123456789", "1"]]
    open_batch.add(["123456789"], 0)
    assert open_batch.take_full() == []


def test_the_bytes_that_have_left_do_not_count() -> None:
    open_batch = batcher(size=2, max_bytes=10)
    open_batch.add(["123456", "123456", "1"], 0)
    assert open_batch.take_full() == [["123456", "123456"]]
    assert open_batch.bodies == ["1"]
    open_batch.add([], 0)
    assert open_batch.take_full() == []


def test_a_batch_is_overdue_by_the_age_of_its_first_request() -> None:
    open_batch = batcher()
    assert not open_batch.overdue(1e9)
    open_batch.add([], 0)
    assert not open_batch.overdue(1e9)
    open_batch.add(["1"], 5)
    open_batch.add(["2"], 14)
    assert not open_batch.overdue(14.9)
    assert open_batch.overdue(15)
    open_batch.take_all()
    assert not open_batch.overdue(15)
    open_batch.add(["3"], 20)
    assert not open_batch.overdue(29.9)


def test_what_a_full_batch_leaves_over_is_as_old_as_itself() -> None:
    open_batch = batcher()
    open_batch.add(["1", "2"], 0)
    open_batch.take_full()
    open_batch.add(["3", "4"], 9)
    assert open_batch.take_full() == [["1", "2", "3"]]
    assert not open_batch.overdue(18.9)
    assert open_batch.overdue(19)


@given(
    pages=st.lists(st.lists(st.text("ab", min_size=1, max_size=9), max_size=9), max_size=20),
    size=st.integers(1, 7),
    max_bytes=st.integers(1, 40),
)
def test_every_request_leaves_once_and_in_order(pages: list[list[str]], size: int, max_bytes: int) -> None:
    open_batch = batcher(size=size, max_bytes=max_bytes)
    batches = []
    for page in pages:
        open_batch.add(page, 0)
        batches += open_batch.take_full()
        assert len(open_batch.bodies) < size
        assert sum(map(len, open_batch.bodies)) < max_bytes
    batches += open_batch.take_all()
    assert [body for batch in batches for body in batch] == [body for page in pages for body in page]
    assert all(1 <= len(batch) <= size for batch in batches)


def test_what_could_not_be_written_is_open_again() -> None:
    batcher = Batcher(size=2, max_bytes=1000, max_age=10)
    batcher.add(["a", "b", "c"], 0.0)
    full = batcher.take_full()
    batcher.put_back(full)
    assert batcher.take_all() == [["a", "b", "c"]]
