"""The seen-set: a set of any keys, whatever the disk does, in memory that does not grow with it."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import pytest
from file_limit import file_limit

from scrapy_distributed.ledger.sqlite_seen import BUCKET_BYTES, CAPACITY, MEMORY_BYTES, Occurrences, Seen


@pytest.fixture(params=[1, 40, MEMORY_BYTES // BUCKET_BYTES], ids="{} buckets in memory".format)
def seen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Seen]:
    with closing(Seen(tmp_path, memory_bytes=request.param * BUCKET_BYTES)) as seen:
        yield seen


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Seen]:
    """All but its first bucket."""
    with closing(Seen(tmp_path, memory_bytes=BUCKET_BYTES)) as seen:
        yield seen


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def test_a_key_is_new_once(seen: Seen) -> None:
    assert seen.add([b"a", b"b", b"a"]) == [True, True, False]
    assert seen.add([b"b", b"c"]) == [False, True]
    assert seen.add([]) == []
    assert (len(seen), b"c" in seen, b"d" in seen) == (3, True, False)


def test_keys_may_be_any_bytes(seen: Seen) -> None:
    keys = [b"", b"\0", b"\0" * 16, b"\0" * 17, b"a" * 16, b"a" * 32, b"a" * 5_000_000, bytes(range(256))]
    assert seen.add(keys) == [True] * len(keys)
    assert seen.add(keys) == [False] * len(keys)


def test_it_grows_and_forgets_nothing(seen: Seen) -> None:
    for start in range(0, 20_000, 1000):
        assert all(seen.add(map(key, range(start, start + 1000))))
    assert not any(seen.add(map(key, range(20_000))))
    assert len(seen) == 20_000


def test_its_memory_does_not_grow_with_its_keys(on_disk: Seen) -> None:
    on_disk.add(map(key, range(1000)))
    tracemalloc.start()
    try:
        for start in range(1000, 11_000, 1000):
            on_disk.add(map(key, range(start, start + 1000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000  # 10,000 keys as bytes in a set: 1 MB


def test_what_is_discarded_is_new_again(seen: Seen) -> None:
    seen.add(map(key, range(3000)))
    seen.discard([*map(key, range(1000)), b"never added"])
    assert len(seen) == 2000
    assert seen.add(map(key, range(3000))) == [True] * 1000 + [False] * 2000


def test_an_error_among_the_keys_leaves_the_set_as_it_was(seen: Seen) -> None:
    def keys() -> Iterator[bytes]:
        yield from map(key, range(500))
        raise ValueError("no")

    seen.add([key(1)])
    with pytest.raises(ValueError, match="no"):
        seen.add(keys())
    assert len(seen) == 1
    assert seen.add([key(0), key(1), key(2)]) == [True, False, True]


def test_a_bucket_may_hold_more_than_has_room_in_the_file(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can choose keys of one bucket; if there are many all the same, nothing is lost."""
    monkeypatch.setattr(seen, "_record", lambda key: bytes(3) + blake2b(key, digest_size=13).digest())
    assert all(seen.add(map(key, range(4 * CAPACITY))))
    assert not any(seen.add(map(key, range(4 * CAPACITY))))
    seen.discard(map(key, range(0, 4 * CAPACITY, 2)))
    assert seen.add(map(key, range(4 * CAPACITY))) == [True, False] * (2 * CAPACITY)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_set_also_while_its_disk_is_full(on_disk: Seen, seed: int) -> None:
    """Checked against Python's own, with a disk whose room changes, also to less than is used."""
    chance = random.Random(seed)
    expected: set[bytes] = set()
    failed = 0
    for _ in range(300):
        some = [key(chance.randrange(10_000)) for _ in range(chance.randrange(200))]
        room = chance.choice([chance.randrange(len(expected) * 40 + 1), 10**9, 10**9])
        with file_limit(room):
            if chance.random() < 0.3:
                on_disk.discard(some)
                expected -= set(some)
            else:
                try:
                    new = on_disk.add(some)
                except OSError:
                    failed += 1
                else:
                    once: set[bytes] = set()
                    assert new == [not (one in expected or one in once or once.add(one)) for one in some]
                    expected |= once
        assert len(on_disk) == len(expected)
    assert failed > 10
    assert len(expected) > 2 * CAPACITY
    assert [key(number) in on_disk for number in range(10_000)] == [key(number) in expected for number in range(10_000)]


def test_nothing_is_left_in_the_folder(tmp_path: Path, on_disk: Seen) -> None:
    on_disk.add(map(key, range(1000)))
    assert on_disk._file.seek(0, 2) > BUCKET_BYTES
    assert list(tmp_path.iterdir()) == []


def test_a_small_set_does_not_meet_the_disk(tmp_path: Path) -> None:
    with closing(Seen(tmp_path)) as seen, file_limit(0):
        assert all(seen.add(map(key, range(20_000))))


def test_occurrences_are_counted(tmp_path: Path) -> None:
    chance = random.Random(1)
    expected: Counter[bytes] = Counter()
    with closing(Occurrences(tmp_path)) as occurrences:
        for _ in range(2000):
            one = chance.choice([b"", b"a", b"a" + (1).to_bytes(8, "big"), bytes(8), b"b", b"b", b"b"])
            expected[one] += 1
            assert occurrences.count(one) == expected[one]
    assert max(expected.values()) > 500
