"""The files of jobs on this machine: their logs, and beside them what workers report."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from scrapy_distributed.wire.hold import is_held
from scrapy_distributed.wire.receipt_file import items_path, receipt_path

KEPT = 100  # logs of jobs that are over


class JobFiles:
    """Those in *folder*. Jobs are known by their ids; one id is that of one job for ever."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._over: list[str] = []

    @classmethod
    def beside(cls, ledger: Path) -> JobFiles:
        """Those of the crawls with this *ledger*."""
        return cls(ledger.with_name(f"{ledger.name}.local"))

    def make(self) -> None:
        """Raises ``OSError``."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what pages say may be nobody else's business
        (self.folder / "logs").mkdir(exist_ok=True)
        self._over = self._over_before()

    def log(self, job: str) -> Path:
        return self.folder / "logs" / f"{job}.log"

    def open_log(self, job: str) -> BinaryIO:
        """To write at its end. Raises ``OSError``."""
        return self.log(job).open("ab", buffering=0)

    def receipt(self, job: str) -> Path:
        return receipt_path(str(self.log(job)), job)

    def items(self, job: str) -> Path:
        return items_path(self.receipt(job))

    def has_begun(self, job: str) -> bool:
        """Whether it was started, here or by another agent. One that was may not have claimed its receipt."""
        return self.log(job).exists()

    def is_held(self, job: str) -> bool:
        """Whether a worker that has claimed it lives."""
        return is_held(self.receipt(job))

    def running(self) -> set[str]:
        """The jobs whose worker has claimed its receipt and lives. Raises ``OSError``."""
        locks = self.receipt("any").parent.glob("*.lock")
        return {lock.stem for lock in locks if is_held(lock)}

    def over(self, job: str) -> None:
        """Nobody asks any more for its items, its receipt, or what it was writing when it was killed. Its log is kept
        for a while."""
        _remove(*self._beside(job))
        self._over.append(job)
        while len(self._over) > KEPT:
            _remove(self.log(self._over.pop(0)))

    def forget(self, runs: Iterable[str]) -> None:
        """Nobody asks for jobs of *runs* any more: those that were lost have left something as well. Logs are kept as
        those of others, and so is what a worker that lives still writes."""
        self._clear(tuple(f"{run}-" for run in runs))

    def clear(self) -> None:
        """Nobody asks any more for what earlier agents have left here: as ``forget`` of all runs."""
        self._clear(("",))

    def _clear(self, heads: tuple[str, ...]) -> None:
        left = {job for path in self.receipt("any").parent.glob("*") if (job := _job_of(path)).startswith(heads)}
        for job in sorted(left):
            with suppress(OSError):
                if not self.is_held(job):
                    self.over(job)

    def _beside(self, job: str) -> list[Path]:
        with suppress(OSError):
            return [path for path in self.receipt(job).parent.iterdir() if _job_of(path) == job]
        return []

    def _over_before(self) -> list[str]:
        """The jobs of other agents that are over, in the order of their ends."""
        logs = sorted((self.folder / "logs").glob("*.log"), key=lambda log: log.stat().st_mtime)
        return [log.stem for log in logs if not self.receipt(log.stem).exists()]


def _job_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _remove(*files: Path) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()
