"""The folder of one worker, which no other has at the same time: several may be started in one place."""

from __future__ import annotations

import fcntl
import os
from itertools import count
from pathlib import Path


class OwnFolder:
    """The first of ``1``, ``2``, ... in *place* that nobody has, until it is closed or this process ends. Who has one
    again finds there the logs of the one before. Raises ``OSError``."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path, self._lock = next(filter(None, map(_taken, (place.absolute() / str(number) for number in count(1)))))

    def close(self) -> None:
        os.close(self._lock)


def _taken(path: Path) -> tuple[Path, int] | None:
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return path, lock
