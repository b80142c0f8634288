"""Files of items that have come home: whole or not there, and of no other run."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.items import spool as spool_module
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import OwnItems, Spool
from scrapy_distributed.wire.receipt import ItemsFile


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "s.sqlite", Spider)
    spool.begin("r1", [])
    return spool


def files(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.folder.iterdir())


def keep(spool: Spool, name: str, *numbers: int) -> None:
    writer = ItemWriter()
    with spool.draft() as draft:
        for number in numbers:
            draft.file.writelines(writer.lines({"n": number}, position=number))
        draft.keep(name)


def own(spool: Spool, *numbers: int, name: str = "own-1.jl") -> ItemsFile:
    items = spool.begin_own(name)
    for number in numbers:
        items.add({"n": number})
    file = items.sync()
    items.close()
    assert file is not None
    return file


def whole(spool: Spool, name: str, items: int = 1) -> ItemsFile:
    """What is to be found under that *name*: all that is there."""
    data = (spool.folder / name).read_bytes()
    return ItemsFile(items, len(data), hashlib.sha256(data).hexdigest())


def numbers(spool: Spool, name: str) -> list[Any]:
    return [line.item["n"] for line in spool.lines(name, whole(spool, name))]


def test_it_is_beside_the_ledger_and_nobody_elses_business(spool: Spool, tmp_path: Path) -> None:
    keep(spool, "000001-1-ab.jl", 1)
    own(spool, 1)
    folder = tmp_path / "s.sqlite.items" / "r1"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert files(spool) == ["000001-1-ab.jl", "own-1.jl"]


def test_what_is_kept_is_whole_and_what_is_not_is_gone(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(spool_module, "BUFFER", 10)
    with spool.draft() as draft:
        draft.file.write(b"x" * 1000)
        assert files(spool) == [draft.path.name]
    assert files(spool) == []
    monkeypatch.setattr(os, "fsync", fsync)
    keep(spool, "000001-1-ab.jl", 7, 8)
    assert numbers(spool, "000001-1-ab.jl") == [7, 8]
    assert files(spool) == ["000001-1-ab.jl"]
    assert (len(synced), synced[1]) == (2, "r1")  # the file before it has its name, and then the folder
    spool.remove("000001-1-ab.jl")
    spool.remove("000001-1-ab.jl")
    assert files(spool) == []


def test_a_folder_that_somebody_has_removed_is_made_again(spool: Spool) -> None:
    keep(spool, "000001-1-ab.jl", 1)
    shutil.rmtree(spool.beside)
    keep(spool, "000002-1-ab.jl", 2)
    assert files(spool) == ["000002-1-ab.jl"]
    assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_what_breaks_off_leaves_nothing(spool: Spool) -> None:
    with suppress(KeyError), spool.draft() as draft:
        draft.file.write(b"x" * 1_000_000)
        raise KeyError
    assert files(spool) == []
    assert draft.file.closed


def test_a_disk_that_is_full_still_at_the_end_leaves_nothing(spool: Spool) -> None:
    """What is in the buffer is tried once more when the file is closed."""
    full = os.open("/dev/full", os.O_WRONLY)
    with spool.draft() as draft:
        draft.file.write(b"x")
        os.dup2(full, draft.file.fileno())
        with pytest.raises(OSError, match="No space left"):
            draft.keep("000001-1-ab.jl")
    os.close(full)
    assert (files(spool), draft.file.closed) == ([], True)


def test_what_does_not_count_is_removed_when_the_run_is_taken_up_again(spool: Spool) -> None:
    for name in ("000001-1-aa.jl", "000001-2-bb.jl", "000002-1-cc.jl"):
        keep(spool, name, 1)
    own(spool, 1)
    for name in (".0123.part", "notes.txt", "cut-1-feed.jl.cut"):
        (spool.folder / name).write_bytes(b"x")
    later = Spool(spool.folder.parent.with_name("s.sqlite"), Spider)
    later.begin("r1", ["000001-2-bb.jl", "000003-1-dd.jl", "own-1.jl"])
    assert later.folder == spool.folder
    assert files(later) == ["000001-2-bb.jl", "cut-1-feed.jl.cut", "notes.txt", "own-1.jl"]
    later.begin("r1", ["000001-2-bb.jl"])
    assert files(later) == ["000001-2-bb.jl", "cut-1-feed.jl.cut", "notes.txt"]


def test_own_items_are_what_was_there_when_they_were_made_safe(spool: Spool) -> None:
    items = spool.begin_own("own-1.jl")
    items.add({"n": 1})
    items.add({"n": 2})
    file = items.sync()
    assert file == whole(spool, "own-1.jl", 2)
    items.add({"n": 3})
    items.close()
    with (spool.folder / "own-1.jl").open("ab") as torn:  # as a command that is killed leaves it
        torn.write(b'[null,0,{"n"')
    assert spool.fault("own-1.jl", file) == ""
    assert [line.item["n"] for line in spool.lines("own-1.jl", file)] == [1, 2]
    assert list(spool.own_pages({"own-1.jl": file})) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data.replace(b"8", b"9"), "found other bytes than were written"),
        (lambda data: data[:-1], "found 27 bytes"),
        (lambda data: b"", "found 0 bytes"),
        (None, "found no file"),
    ],
)
def test_what_is_damaged_is_told_with_what_was_expected(
    spool: Spool, damage: Callable[[bytes], bytes] | None, found: str
) -> None:
    keep(spool, "000001-1-ab.jl", 7, 8)
    file, path = whole(spool, "000001-1-ab.jl", 2), spool.folder / "000001-1-ab.jl"
    assert spool.fault(path.name, file) == ""
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert spool.fault(path.name, file) == f"{found}, expected 2 items in 28 bytes"
    assert bool(spool.fault(path.name, file, thorough=False)) is (found != "found other bytes than were written")


def test_what_can_not_be_read_is_told_as_well(spool: Spool) -> None:
    (spool.folder / "a.jl").mkdir()
    fault = spool.fault("a.jl", ItemsFile(1, 1, ""))
    assert fault.startswith("can't be read: [Errno 21] Is a directory")


def test_own_items_after_one_that_can_not_be_kept_are_of_no_use(spool: Spool) -> None:
    items = spool.begin_own("own-1.jl")
    items.add({"n": 1})
    assert items.sync()
    with pytest.raises(NotSerializableError):
        items.add({"n": object()})
    items.add({"n": object()})
    items.add({"n": 2})
    assert not items.sync()
    items.close()
    assert numbers(spool, "own-1.jl") == [1]


@pytest.mark.parametrize("when", ["add", "sync"])
def test_own_items_on_a_full_disk_are_not_safe(spool: Spool, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr(spool_module, "BUFFER", 16 if when == "add" else 4096)
    items = spool.begin_own("own-1.jl")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, items._file.fileno())
    os.close(full)
    if when == "add":
        with pytest.raises(OSError, match="No space left"):
            items.add({"n": "x" * 100})
    else:
        items.add({"n": 1})
    assert not items.sync()
    items.close()  # which is no error


def test_another_coordinator_does_not_write_into_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "own-1.jl"
    OwnItems(path).close()
    with pytest.raises(FileExistsError):
        OwnItems(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'[0,0,{"n":1}]\n[0,0,{"n":2', "without the end of a line"),
        (b"rubbish\n", "found"),
        (b"[" * 100 + b"\n", "found"),
    ],
)
def test_a_damaged_file_is_refused(spool: Spool, data: bytes, words: str) -> None:
    (spool.folder / "a.jl").write_bytes(data)
    with pytest.raises(WireError, match=words):
        numbers(spool, "a.jl")


def test_items_before_the_damage_are_given_also_where_they_are_read_ahead(spool: Spool) -> None:
    for last in range(1, 2_000, 300):
        keep(spool, "a.jl", *range(last))
        with (spool.folder / "a.jl").open("ab") as file:
            file.write(b"rubbish\n")
        found: list[Any] = []
        with pytest.raises(WireError):
            found.extend(line.item["n"] for line in spool.lines("a.jl", whole(spool, "a.jl")))
        assert found == list(range(last))


def test_a_line_without_an_end_does_not_fill_the_memory(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_LINE", 100)
    (spool.folder / "a.jl").write_bytes(b"[" * 1000)
    with pytest.raises(WireError, match="found 101 bytes without the end of a line"):
        numbers(spool, "a.jl")


def test_what_earlier_runs_have_left_is_removed_and_nothing_else(spool: Spool) -> None:
    keep(spool, "000001-1-ab.jl", 1)
    spool.begin("r2", [])
    keep(spool, "000001-1-cd.jl", 1)
    spool.begin("r3", [])
    spool.forget(["r1", "r0"])
    assert sorted(path.name for path in spool.beside.iterdir()) == ["r2", "r3"]
