"""A worker on this machine that joins a shared run, for as long as its coordinator is there."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from scrapy_distributed.shared.address import PASSWORD, USERNAME, RedisAddress

logger = logging.getLogger(__name__)

END_SECONDS = 20.0  # for what is under way in it


class OwnWorker:
    """``scrapy worker`` with so many *slots*, for runs at *address*. Its log goes to the file *log*."""

    def __init__(self, address: RedisAddress, *, slots: int, log: Path) -> None:
        self.address = address
        self.slots = slots
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises ``OSError``. User and password go by its environment: a command line is for all to see."""
        secrets = {USERNAME: self.address.username, PASSWORD: self.address.password}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "scrapy", "worker", str(self.address), "--slots", str(self.slots),
                    "--parent", str(os.getpid()),
                ],
                env={**os.environ, **{name: value for name, value in secrets.items() if value}},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def has_ended(self) -> bool:
        """Whether it is gone, though nobody has told it to. Tells so once."""
        if self._process is None or self._process.poll() is None:
            return False
        self._process = None
        return True

    async def end(self) -> None:
        """What is under way in it comes to its end, or goes back, as far as there is time."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        for _ in range(round(END_SECONDS / 0.1)):
            if process.poll() is not None:
                return
            await asyncio.sleep(0.1)
        process.kill()
        process.wait()
