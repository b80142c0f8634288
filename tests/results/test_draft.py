"""Drafts: in their place as a whole, removed when their writer is dead, and never while it lives."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from listing import names

from scrapy_distributed.results.draft import draft, put, remove_dead

DEAD = ".merge-0123abcd.part"


def test_a_draft_that_is_put_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("as it was")
    with draft(tmp_path) as file:
        file.write(b"new")
        (name,) = set(names(tmp_path)) - {"out"}
        assert name.startswith(".merge-")
        put(file, tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "new"


def test_a_draft_that_is_not_put_leaves_nothing(tmp_path: Path) -> None:
    with draft(tmp_path) as file:
        file.write(b"new")
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_of_those_that_are_there_only_the_dead_are_removed(tmp_path: Path) -> None:
    (tmp_path / DEAD).write_text("half of it")
    with draft(tmp_path) as file:
        remove_dead(tmp_path)
        assert names(tmp_path) == [Path(file.name).name]


def test_what_is_no_draft_of_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "elsewhere").write_text("of others")
    (folder / ".merge-00000001.part").symlink_to(tmp_path / "elsewhere")
    (folder / ".merge-00000002.part").symlink_to(tmp_path / "nowhere")
    (folder / ".merge-00000003.part").mkdir()
    os.mkfifo(folder / ".merge-00000004.part")
    for name in (
        "notes.part",
        "0123abcd.part.bak",
        "0123ABCD.part",
        "0123abc.part",
        "0123abcd9.part",
        "0123abcd.part\n",
    ):
        (folder / f".merge-{name}").write_text("of others")
    before = names(folder)
    remove_dead(folder)
    assert names(folder) == before
    assert (tmp_path / "elsewhere").read_text() == "of others"

    (folder / DEAD).write_text("another user's")
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: os.getuid() + 1)
        remove_dead(folder)
    assert (folder / DEAD).exists()
    remove_dead(folder)
    assert names(folder) == before


def test_a_folder_that_is_not_there_or_can_not_be_read(tmp_path: Path) -> None:
    remove_dead(tmp_path / "gone")
    (tmp_path / "file").touch()
    remove_dead(tmp_path / "file")


@pytest.mark.parametrize("meanwhile", ["removed", "replaced", "being removed"])
def test_one_that_is_taken_for_dead_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """By another process that looks just then: another draft is made, and that one is safe."""
    flock = fcntl.flock
    taken: list[str] = []

    def interrupted(file: int, how: int) -> None:
        if taken:
            flock(file, how)
            return
        (name,) = names(tmp_path)
        taken.append(name)
        if meanwhile == "being removed":
            raise BlockingIOError
        remove_dead(tmp_path)
        assert names(tmp_path) == []
        if meanwhile == "replaced":
            (tmp_path / name).write_text("another's")
        flock(file, how)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", interrupted)
        with draft(tmp_path) as file:
            assert Path(file.name).name not in taken
            file.write(b"new")
            put(file, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "new"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows there which are dead, so all of them stay."""

    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / DEAD).touch()
    remove_dead(tmp_path)
    with draft(tmp_path) as file:
        file.write(b"new")
        put(file, tmp_path / "out")
    assert names(tmp_path) == [DEAD, "out"]
