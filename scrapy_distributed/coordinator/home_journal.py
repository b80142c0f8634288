"""The journal of a shared run in the folder where its items come home: each line tells of one change, and survives a
power cut before the change counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.items.folder import make_folder, sync_folder
from scrapy_distributed.ledger.spooled import own_from_json, spooled
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile

JOURNAL = "home.journal"


class AtHome(NamedTuple):
    """What the journal of a run tells: its *files* in the spool, and the *feeds* of what was scraped here, those that
    each command has stored."""

    files: dict[str, ItemsFile]
    feeds: list[tuple[FeedFile, ...]]


class Journal:
    """That of the run whose spool is *folder*, which is made. What it raises is for ``usable``, but for ``write``."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._file: IO[bytes] = (folder / JOURNAL).open("a+b")
        sync_folder(folder)

    def lines(self) -> Iterator[dict[str, Any]]:
        """All that is written. A line that was cut off goes: its change did not count."""
        self._file.seek(0)
        whole = self._file.read()
        end = whole.rfind(b"\n") + 1
        self._file.truncate(end)
        return lines_in(whole[:end])

    def write(self, line: Mapping[str, Any]) -> None:
        """Raises ``LedgerUnavailableError`` where that can't be done; then nothing is written."""
        with written():
            at = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(json.dumps(line).encode() + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(at)
                raise

    def close(self) -> None:
        self._file.close()


def at_home(folder: Path) -> AtHome:
    """Of the run whose spool is *folder*, also while a coordinator writes it. Raises ``LedgerError``."""
    home: dict[str, ItemsFile] = {}
    own: dict[str, ItemsFile] = {}
    feeds: list[tuple[FeedFile, ...]] = []
    try:
        whole = (folder / JOURNAL).read_bytes()
        for line in lines_in(whole[: whole.rfind(b"\n") + 1]):
            apply(line, home)
            own = own_from_json(json.dumps(line["own"])) if "own" in line else own
            if "files" in line:
                feeds.append(tuple(FeedFile(*file) for file in line["files"]))
            elif "stored" in line:  # they are to be written anew
                feeds.clear()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise LedgerError(f"{folder / JOURNAL}: can't be read: {error}") from None
    return AtHome({**own, **dict(sorted(home.items()))}, feeds)


def apply(line: Mapping[str, Any], home: dict[str, ItemsFile]) -> None:
    """What *line* of a journal says of the files that are *home*."""
    home.update({name: spooled(*file) for name, file in line.get("home", {}).items()})
    for name in line.get("forgotten", ()):
        del home[name]


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """What is wrong with the file at *path* is a ``LedgerError``."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, LedgerUnavailableError) as error:
        raise LedgerError(f"{path}: can't be used: {error}") from None


@contextmanager
def written() -> Iterator[None]:
    """What can't be written is a ``LedgerUnavailableError``."""
    try:
        yield
    except OSError as error:
        raise LedgerUnavailableError(f"what is known of items here: {error}") from error


def lines_in(text: bytes) -> Iterator[dict[str, Any]]:
    """Raises ``ValueError`` for what is no journal."""
    for line in text.splitlines():
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError(f"found {found!r:.60}, expected an object")
        yield found
