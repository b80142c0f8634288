"""Which items come home: those of accepted attempts, each page's once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from scrapy_distributed.ledger.spooled import crawled_again, own_from_json, own_to_json, spool_name, spooled
from scrapy_distributed.ledger.sqlite_batches import Batches
from scrapy_distributed.ledger.sqlite_store import Store, damage, while_available
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile

HOME = """
SELECT batch, number, token, home, size, digest FROM attempt WHERE run = ? AND state = 'accepted' AND home IS NOT NULL
ORDER BY batch, number
"""
EARLIER = """
SELECT name FROM run WHERE id < :run AND ended IS NOT NULL
    AND identity = (SELECT identity FROM run WHERE id = :run) ORDER BY id
"""
APPENDED = "SELECT appended FROM run WHERE id = ?"
HOME_OF = "SELECT home, size, digest FROM attempt WHERE run = ? AND batch = ? AND number = ?"
SPOOLED = "SELECT spooled FROM run WHERE id = ?"
SET_SPOOLED = "UPDATE run SET spooled = ? WHERE id = ?"
OWN = "SELECT own FROM run WHERE id = ?"
SET_OWN = "UPDATE run SET own = ? WHERE id = ?"
SET_UNEXPORTED = "UPDATE run SET unexported = ? WHERE id = ?"
SET_APPENDED = "UPDATE run SET appended = ? WHERE id = ?"
FEEDS = "SELECT feeds FROM run WHERE id = ?"
SET_FEEDS = "UPDATE run SET feeds = ? WHERE id = ?"


class Harvest:
    """For what takes items home, and puts them into feeds. *advice*: what to do where some are lost."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches
        self.advice = crawled_again(store.path)

    @while_available
    def is_new_page(self, key: bytes) -> bool:
        """Whether *key* is new to the run, as a page and as a request of its own."""
        with self._store.scratch():
            return key not in self._store.seen

    @while_available
    def enter_pages(self, keys: Collection[bytes]) -> bool:
        """Enter *keys*, which are new no longer; that becomes durable when the attempt is settled that has brought
        them. Where one is not new nothing is done; returns whether all were.

        To be followed by the verdict on the attempt at once: what else comes upon one of these pages, or requests it,
        would be left out for an attempt that may not count."""
        with self._store.scratch():
            new = self._store.seen.add(keys)
        if all(new):
            return True
        self.leave_pages([key for key, is_new in zip(keys, new, strict=True) if is_new])
        return False

    @while_available
    def know_pages(self, keys: Iterable[bytes]) -> None:
        """These have brought items in an earlier command, as the spool tells."""
        with self._store.scratch():
            self._store.seen.add(keys)

    def leave_pages(self, keys: Iterable[bytes]) -> None:
        """What has brought them does not count."""
        self._store.seen.discard(keys)

    @while_available
    def payload(self, attempt: Attempt) -> str:
        """What *attempt* was sent."""
        return self._batches.part(self._batches.payload(attempt.batch), attempt.positions)

    @while_available
    def files(self) -> dict[str, ItemsFile]:
        """All that has come home from workers, by batch and attempt: name in the spool to what is there."""
        with damage("the items that have come home"):
            return {
                spool_name(batch, number, token): spooled(*file)
                for batch, number, token, *file in self._store.db.execute(HOME, (self._store.run_id,))
            }

    @while_available
    def file(self, attempt: Attempt) -> ItemsFile:
        """What has come home from *attempt*, which counts."""
        row = self._store.row(HOME_OF, (self._store.run_id, attempt.batch, attempt.number))
        with damage("the items of an attempt"):
            return spooled(*row)

    @while_available
    def own_files(self) -> dict[str, ItemsFile]:
        """What the coordinator has scraped itself in earlier commands of the run, in their order: name in the spool to
        what is needed of the file."""
        (text,) = self._store.row(SPOOLED, (self._store.run_id,))
        with damage("the items that were scraped here"):
            return own_from_json(text)

    @while_available
    def set_own_files(self, files: Mapping[str, ItemsFile]) -> None:
        """To be called before its walk is said to be done: from then on a later command needs them."""
        self._store.db.execute(SET_SPOOLED, (own_to_json(files), self._store.run_id))

    @while_available
    def earlier_runs(self) -> list[str]:
        """The names of the runs of this one's identity that have ended before it."""
        return [name for (name,) in self._store.db.execute(EARLIER, {"run": self._store.run_id})]

    @while_available
    def appended(self) -> dict[str, tuple[int, int, str]]:
        """The files that feeds of this run append to: the bytes that were in each before, and the number and digest of
        those that the run has written behind them."""
        (text,) = self._store.row(APPENDED, (self._store.run_id,))
        with damage("the files that feeds append to"):
            return {path: (before, size, digest) for path, (before, size, digest) in json.loads(text).items()}

    @while_available
    def appends_to(self, path: str, size: int) -> None:
        """A feed is about to append to *path*, which has *size* bytes. Survives a power cut. Of several times the first
        counts."""
        with self._store.transaction(durable=True):
            text = json.dumps({path: (size, 0, "")} | self.appended())
            self._store.db.execute(SET_APPENDED, (text, self._store.run_id))

    @while_available
    def has_appended(self, written: Mapping[str, tuple[int, str]]) -> None:
        """Path to the number and the digest of the bytes that this command has written there so far."""
        files = self.appended()
        now = {path: (before, *written.get(path, own)) for path, (before, *own) in files.items()}
        if now != files:
            self._store.db.execute(SET_APPENDED, (json.dumps(now), self._store.run_id))

    @while_available
    def set_unexported(self, number: int) -> None:
        """Items that have come home and that the coordinator's feeds could not express."""
        self._store.db.execute(SET_UNEXPORTED, (number, self._store.run_id))

    # Where workers have feeds: where these are, and those of what the coordinator has scraped itself

    @while_available
    def workers_write(self, urls: Iterable[str]) -> None:
        """Workers are told to write feeds to *urls*, which have no passwords, from now on as well."""
        (text,) = self._store.row(FEEDS, (self._store.run_id,))
        with damage("the feeds of workers"):
            all_urls = list(dict.fromkeys([*json.loads(text), *urls]))
        self._store.db.execute(SET_FEEDS, (json.dumps(all_urls), self._store.run_id))

    @while_available
    def own_stored(self) -> set[str]:
        """The names in the spool of what is in such a feed."""
        return {name for names, _ in self._own() for name in names}

    @while_available
    def store_own(self, names: Sequence[str], files: Sequence[FeedFile]) -> None:
        """What is called so in the spool is in *files* now. Survives a power cut."""
        with self._store.transaction(durable=True):
            text = json.dumps([*self._own(), [list(names), [list(file) for file in files]]])
            self._store.db.execute(SET_OWN, (text, self._store.run_id))

    @while_available
    def forget_own(self) -> None:
        """It is scraped again, so these feeds do not count."""
        self._store.db.execute(SET_OWN, ("[]", self._store.run_id))

    def _own(self) -> list[Any]:
        (text,) = self._store.row(OWN, (self._store.run_id,))
        with damage("the feeds of what was scraped here"):
            return [(list(names), files) for names, files in json.loads(text)]
