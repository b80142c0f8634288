"""What the two have in common that store items: ``Homecoming`` and ``OwnFeed``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from scrapy_distributed.errors import LedgerError, WireError
from scrapy_distributed.items.spool import OwnItems, Spool
from scrapy_distributed.ledger.spooled import lost_words, next_own
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile


class HomeLedger(Protocol):
    """What a ledger knows of the items of a run. See ``ledger.sqlite_harvest``, and ``home_book`` for shared runs.
    *advice*: what to do where some are lost."""

    @property
    def advice(self) -> str: ...

    def files(self) -> dict[str, ItemsFile]: ...

    def file(self, attempt: Attempt) -> ItemsFile: ...

    def earlier_runs(self) -> list[str]: ...

    def enter_pages(self, keys: Collection[bytes]) -> bool: ...

    def know_pages(self, keys: Iterable[bytes]) -> None: ...

    def own_files(self) -> dict[str, ItemsFile]: ...

    def set_own_files(self, files: Mapping[str, ItemsFile]) -> None: ...

    def own_stored(self) -> set[str]: ...

    def store_own(self, names: Sequence[str], files: Sequence[FeedFile]) -> None: ...

    def forget_own(self) -> None: ...

    def appended(self) -> dict[str, tuple[int, int, str]]: ...

    def appends_to(self, path: str, size: int) -> None: ...

    def has_appended(self, written: Mapping[str, tuple[int, str]]) -> None: ...

    def set_unexported(self, number: int) -> None: ...


class Keeper(Protocol):
    """Has items to be stored before a run is over. *idle*: nothing is on its way."""

    @property
    def idle(self) -> bool: ...

    def begin(self, run: str, *, walk: bool) -> None:
        """What earlier commands of *run* have kept is stored with what comes. *walk*: what the coordinator has scraped
        itself is scraped again. Raises ``LedgerError`` where it can't be found, or nothing can be kept."""

    def own_is_safe(self) -> bool:
        """Whether a later command has what the coordinator has scraped itself. If not, only the one that has scraped it
        has it, and its walk is not to be called done before the run is over."""

    async def finish(self) -> None:
        """Wait until it is ``idle``."""

    async def close(self) -> bool:
        """Store the feeds. Returns whether each has all that it could hold."""

    def ended(self) -> None:
        """The run is over: what earlier ones have left is of no use any more."""


class OwnSpooled:
    """What the coordinator of *spider* scrapes itself, in a file of *spool* for each of its commands. *ledger* knows
    those of earlier ones; *earlier*: those of them that are in no feed of their own."""

    def __init__(self, *, spool: Spool, ledger: HomeLedger, spider: Any) -> None:
        self.spool = spool
        self.ledger = ledger
        self.spider = spider
        self.earlier: dict[str, ItemsFile] = {}
        self._files: dict[str, ItemsFile] = {}
        self._items: OwnItems | None = None

    @property
    def begun(self) -> bool:
        return self._items is not None

    def begin(self, run: str, *, walk: bool, home: Mapping[str, ItemsFile]) -> str:
        """As that of a ``Keeper``. *home*: what else should be in the spool of *run*. Returns the name of the file of
        this command."""
        if walk:
            self.ledger.set_own_files({})
        stored = self.ledger.own_stored()
        self._files = self.ledger.own_files()
        self.earlier = {name: file for name, file in self._files.items() if name not in stored}
        needed = {**self.earlier, **home}
        try:
            self.spool.begin(run, {**self._files, **home})
            faults = {
                name: self.spool.fault(name, file, thorough=name in self.earlier) for name, file in needed.items()
            }
            if lost := {name: fault for name, fault in faults.items() if fault}:
                raise LedgerError(lost_words(self.spool.folder, lost, self.ledger.advice))
            self.ledger.know_pages(self.spool.own_pages(self.earlier))
            self._items = self.spool.begin_own(next_own([*self._files, *stored]))
        except (OSError, WireError) as error:
            raise LedgerError(f"{self.spool.folder}: can't keep the items of this run: {error}") from None
        return self._items.name

    def keep(self, item: Any, *, page: str = "") -> None:
        """*item* of the *page* of that key, as ``OwnItems`` has it."""
        if self._items is not None:
            self._items.keep(item, page=page, spider=self.spider)

    def is_safe(self) -> bool:
        """As ``own_is_safe`` of a ``Keeper``."""
        file = self._items.sync() if self._items is not None else None
        if self._items is None or file is None:
            return False
        self.ledger.set_own_files(self._files | ({self._items.name: file} if file.items else {}))
        return True

    def close(self) -> None:
        if self._items is not None:
            self._items.close()
