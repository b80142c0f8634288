"""The file of a receipt, and of the items that lie beside it."""

from __future__ import annotations

import os
from pathlib import Path

from scrapy_distributed.wire.job import check_job_id
from scrapy_distributed.wire.receipt import Receipt


def receipt_path(log_file: str, job: str) -> Path:
    """Where the worker writes, from the ``LOG_FILE`` that Scrapyd gives it (``<project>/<spider>/<job>.log``).

    Raises ``ConfigError`` for a job id that is no plain file name."""
    check_job_id(job)
    folder = Path(log_file).absolute().parent
    return folder.with_name(folder.name + ".receipts") / f"{job}.json"


def items_path(receipt: Path) -> Path:
    """Where the items of a worker are that come home: beside its *receipt*."""
    return receipt.with_suffix(".items")


def claim(path: Path, receipt: Receipt) -> bool:
    """Write the first receipt of a job, if none is there: of two workers with the same job id one gets ``False``.

    Raises ``OSError`` where nobody can tell, e.g. on a file system without hard links.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(receipt.to_json(), encoding="ascii")
        os.link(draft, path)  # a reader sees all of it, or none
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def write(path: Path, receipt: Receipt) -> None:
    """Replace the receipt at *path* as a whole: a reader sees the old one or the new one. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    with draft.open("w", encoding="ascii") as file:
        file.write(receipt.to_json())
        if receipt.final:  # a power cut must not leave an empty final receipt
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
