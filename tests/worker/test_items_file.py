"""The file of items that a worker leaves beside its receipt."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from scrapy import Spider

from scrapy_distributed.errors import NotSerializableError
from scrapy_distributed.items.spool import lines_of
from scrapy_distributed.worker import items_file
from scrapy_distributed.worker.items_file import ItemsFileWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.items"


def fill_disk(writer: ItemsFileWriter) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._file.fileno())
    os.close(full)


def test_what_it_tells_is_what_is_in_the_file(path: Path) -> None:
    writer = ItemsFileWriter(path)
    writer.add({"n": 1}, position=0, page="")
    writer.add({"n": "\u00fc"}, position=3, page="ab")
    writer.add({"n": 3}, position=None, page="")
    told = writer.close()
    data = path.read_bytes()
    assert told == (3, len(data), hashlib.sha256(data).hexdigest())
    with path.open("rb") as file:
        lines = [line for _, line in lines_of(file, Spider) if line is not None]
    assert [(line.position, line.page, line.item["n"]) for line in lines] == [
        (0, "", 1),
        (3, "ab", "\u00fc"),
        (None, "", 3),
    ]


def test_one_without_items_is_there(path: Path) -> None:
    assert ItemsFileWriter(path).close() == (0, 0, hashlib.sha256().hexdigest())
    assert path.read_bytes() == b""


def test_it_survives_a_power_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    writer = ItemsFileWriter(path)
    writer.add({"n": 1}, position=0, page="")
    writer.close()
    assert sizes == [path.stat().st_size]


def test_what_can_not_travel_is_left_out_and_what_is_of_no_request_counted(path: Path) -> None:
    writer = ItemsFileWriter(path)
    for position in (0, None, None):
        with pytest.raises(NotSerializableError, match="n object"):
            writer.add({"n": object()}, position=position, page="")
    writer.add({"n": 1}, position=0, page="")
    assert (writer.left_out, writer.damaged) == (2, False)
    told = writer.close()
    assert told is not None
    assert (told.items, told.size) == (1, path.stat().st_size)


def test_a_file_that_is_there_is_another_workers(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(FileExistsError):
        ItemsFileWriter(path)


def test_a_disk_that_is_full_at_the_write_is_told_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_file, "BUFFER", 16)
    writer = ItemsFileWriter(path)
    fill_disk(writer)
    with pytest.raises(OSError, match="No space left"):
        writer.add({"n": "x" * 100}, position=0, page="")
    assert writer.damaged
    writer.add({"n": "y" * 100}, position=1, page="")
    with pytest.raises(NotSerializableError):
        writer.add({"n": object()}, position=1, page="")
    assert writer.close() is None
    assert writer._file.closed


def test_a_disk_that_is_full_at_the_end_is_told(path: Path) -> None:
    writer = ItemsFileWriter(path)
    writer.add({"n": 1}, position=0, page="")
    fill_disk(writer)
    assert not writer.damaged
    assert writer.close() is None
    assert (writer.damaged, writer._file.closed) == (True, True)


def test_a_disk_that_is_full_at_the_sync_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    writer = ItemsFileWriter(path)
    writer.add({"n": 1}, position=0, page="")
    monkeypatch.setattr(os, "fsync", full)
    assert writer.close() is None
    assert writer.damaged
