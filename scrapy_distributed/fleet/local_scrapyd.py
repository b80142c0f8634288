"""Scrapyd as `local_node` starts it, with the read end of a pipe as its standard input. Whoever started it has the
other end; when that is gone, also by SIGKILL, Scrapyd ends with all of its process group: its workers."""

from __future__ import annotations

import os
import signal
from threading import Thread


def _end_with_starter() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    from scrapyd.__main__ import main

    Thread(target=_end_with_starter, daemon=True).start()
    main()
