"""What a demo says of the workers on this machine while it crawls."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import ledgers
from progress import local_state

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt


def bound(ledger: Ledger, number: int, node: str = LOCAL) -> Attempt:
    ledgers.cut(ledger, ledgers.divert(ledger, number))
    return ledger.bookings.bind(ledger.bookings.ready()[0][0], node, node)[0]


def test_before_the_coordinator_has_begun(tmp_path: Path) -> None:
    assert local_state(tmp_path / "ledger.sqlite", tmp_path) == "local has not begun"
    with closing(Ledger(tmp_path / "ledger.sqlite")):
        assert local_state(tmp_path / "ledger.sqlite", tmp_path) == "local has not begun"


def test_jobs_that_run_wait_or_are_over_and_none_of_a_scrapyd(tmp_path: Path) -> None:
    files = JobFiles(tmp_path / "local")
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(ledgers.IDENTITY, resume=True)
        bound(ledger, 0, node="scrapyd1")
        accepted, rejected, unsent, running, _ = (bound(ledger, number) for number in range(1, 6))
        ledger.verdicts.settle(accepted, ledgers.receipt(accepted), max_attempts=1)
        ledger.verdicts.reject(rejected, "no receipt: killed", counts=True, max_attempts=1)
        ledger.verdicts.unsent(unsent, "taken back")
        assert local_state(ledger.path, files.folder) == "local running 0, pending 2, done 2"
        files.make()
        files.open_log(running.job).close()
        assert local_state(ledger.path, files.folder) == "local running 1, pending 1, done 2"
