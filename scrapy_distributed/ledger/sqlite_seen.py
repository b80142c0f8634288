"""The keys that a run has seen: a set on disk that takes the same memory and the same time a key however large it is.

A file of buckets of one page each, grown by linear hashing: whenever the buckets are full enough on average, the next
of them is split into itself and a new one at the end of the file. So no step is longer than that of one bucket, nothing
is ever sorted or moved as a whole. Memory holds the first buckets, so a small set never meets the disk, and one byte
for each of the others.

The set lives as long as its object. Its file has no name, so it is gone with the process, however that ends.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

#: Bytes of a key's hash, which stands for the key. It is keyed with a secret, so nobody can choose keys that share a
#: bucket; that two of ten million keys share a hash, or one is found across the border of two others, has a chance of
#: 10^-23.
RECORD = 16
BUCKET_BYTES = 4096  # a page, so that reading or writing a bucket never takes two
CAPACITY = 255  # records of a bucket in the file: what a byte can count
MEMORY_BYTES = 8 * 1024 * 1024  # of the first buckets: 230,000 keys
LOAD = 112  # records a bucket on average. Just before it is split a bucket has twice as many, give or take 15


class Seen:
    """A set of byte strings of any length, in a nameless file in *folder* but for the first *memory_bytes* of it.

    Raises ``OSError`` where that can't be written or read; then the set is what it was before the call.
    """

    def __init__(self, folder: Path, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory = mmap.mmap(-1, memory_bytes)  # takes memory where it is written
        self._in_memory = memory_bytes // BUCKET_BYTES  # buckets
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # as long as we are
        self._hash = blake2b(digest_size=RECORD, key=secrets.token_bytes(RECORD))
        self._size = 0
        self._counts = bytearray(1)  # of each bucket: its records in its page
        self._more: dict[int, bytes] = {}  # bucket -> records that are not in its page: no room there, or on the disk
        self._round = 1  # the number of buckets when this round of splits began: a power of two

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: bytes) -> bool:
        record = self._record(key)
        return record in self._read(self._bucket(record))

    def add(self, keys: Iterable[bytes]) -> list[bool]:
        """Enter *keys*; returns of each whether it was new."""
        new: list[bool] = []
        added: list[bytes] = []
        counts, more = self._counts, self._more
        try:
            for key in keys:
                record = self._record(key)
                bucket = self._bucket(record)
                if record in self._page(bucket) or (bucket in more and record in more[bucket]):
                    new.append(False)
                    continue
                if counts[bucket] < CAPACITY and bucket not in more:
                    self._write(record, bucket * BUCKET_BYTES + counts[bucket] * RECORD)
                    counts[bucket] += 1
                else:
                    more[bucket] = more.get(bucket, b"") + record
                new.append(True)
                added.append(record)
                self._size += 1
                if self._size > LOAD * len(counts):
                    self._split()
        except BaseException:
            self._remove(added)
            raise
        return new

    def discard(self, keys: Iterable[bytes]) -> None:
        """Take *keys* out again; no error if that can't be written."""
        self._remove(map(self._record, keys))

    def close(self) -> None:
        self._file.close()
        self._memory.close()

    def _record(self, key: bytes) -> bytes:
        keyed = self._hash.copy()
        keyed.update(key)
        return keyed.digest()

    def _bucket(self, record: bytes) -> int:
        """By the lowest bits of *record*: one more of them for a bucket that is split already, and for what it split
        off."""
        number = int.from_bytes(record, "little")
        bucket = number & (self._round - 1)
        return bucket if bucket >= len(self._counts) - self._round else number & (2 * self._round - 1)

    def _read(self, bucket: int) -> bytes:
        return self._page(bucket) + self._more.get(bucket, b"")

    def _page(self, bucket: int) -> bytes:
        at, size = bucket * BUCKET_BYTES, self._counts[bucket] * RECORD
        return self._memory[at : at + size] if bucket < self._in_memory else os.pread(self._file.fileno(), size, at)

    def _write(self, data: bytes, at: int) -> None:
        if at < self._in_memory * BUCKET_BYTES:
            self._memory[at : at + len(data)] = data
        elif os.pwrite(self._file.fileno(), data, at) < len(data):  # a disk that is full takes what it can
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, bucket: int, records: bytes) -> None:
        """Make *records* all that *bucket* holds. What can't be written stays in memory, and the set is whole."""
        self._counts[bucket], self._more[bucket] = 0, records
        first, rest = records[: CAPACITY * RECORD], records[CAPACITY * RECORD :]
        self._write(first, bucket * BUCKET_BYTES)
        self._counts[bucket] = len(first) // RECORD
        if rest:
            self._more[bucket] = rest
        else:
            del self._more[bucket]

    def _split(self) -> None:
        """The next bucket of this round gives those records to a new one that have the next bit set."""
        bucket, new = len(self._counts) - self._round, len(self._counts)
        byte, bit = divmod(self._round.bit_length() - 1, 8)
        held = _records(self._read(bucket))
        self._counts.append(0)
        if len(self._counts) == 2 * self._round:
            self._round *= 2
        # In memory, before a write can fail: then both are whole.
        self._more[new] = b"".join([record for record in held if record[byte] >> bit & 1])
        self._put(bucket, b"".join([record for record in held if not record[byte] >> bit & 1]))
        self._put(new, self._more[new])

    def _remove(self, records: Iterable[bytes]) -> None:
        unwanted: defaultdict[int, set[bytes]] = defaultdict(set)
        for record in records:
            unwanted[self._bucket(record)].add(record)
        for bucket, some in unwanted.items():
            held = _records(self._read(bucket))
            kept = [record for record in held if record not in some]
            self._size -= len(held) - len(kept)
            with suppress(OSError):  # it is in memory then
                self._put(bucket, b"".join(kept))


class Occurrences:
    """How often each key was counted, on disk as ``Seen`` is: the n-th time is a key of its own."""

    def __init__(self, folder: Path) -> None:
        self._seen = Seen(folder)

    def count(self, key: bytes) -> int:
        """How often this was called for *key*, this call included. Takes a number of steps that grows with its
        logarithm. Raises ``OSError``."""
        free = 1
        while _numbered(key, free) in self._seen:
            free *= 2
        taken = free // 2
        while free - taken > 1:
            middle = (taken + free) // 2
            if _numbered(key, middle) in self._seen:
                taken = middle
            else:
                free = middle
        self._seen.add([_numbered(key, free)])
        return free

    def close(self) -> None:
        self._seen.close()


def _numbered(key: bytes, number: int) -> bytes:
    return key + number.to_bytes(8, "big")


def _records(held: bytes) -> list[bytes]:
    return [held[at : at + RECORD] for at in range(0, len(held), RECORD)]
