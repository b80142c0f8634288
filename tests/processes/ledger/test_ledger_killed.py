"""A process that uses a ledger is killed, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from ledgers import IDENTITY, key

from scrapy_distributed.ledger.sqlite import Ledger

CHILD = """
import itertools, sys
from ledgers import IDENTITY, Ledger, body, key, receipt
ledger = Ledger(sys.argv[1])
ledger.begin(IDENTITY, resume=True)
last = int(sys.argv[2])
for number in itertools.count(last):
    print("key", number, flush=True)  # about to be diverted; the one before is durable
    ledger.intake.divert([(key(number), body(number)), (key(number // 2), body(number // 2))])
    if number % 3 == 0:
        ledger.intake.cut([ledger.intake.open_batch()[0]])
    while number % 5 == 0 and (ready := ledger.bookings.ready()):
        attempt, payload = ledger.bookings.bind(ready[0][0], "n")
        print("bound", attempt.job, flush=True)
        ledger.bookings.sent(attempt)
    if number % 4 == 0:
        for attempt in ledger.bookings.live():
            if attempt.batch % 2:
                ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3)
            elif attempt.batch % 3:
                ledger.verdicts.reject(attempt, "no", counts=True, max_attempts=2)
"""


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    diverted, bound = 0, set()
    for kill_after in (1, 7, 40, 41, 90):
        command = [sys.executable, "-c", CHILD, str(path), str(diverted)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            for _, line in zip(range(kill_after), child.stdout, strict=False):
                what, value = line.split()
                diverted = int(value) if what == "key" else diverted
                bound |= {value} if what == "bound" else set()
            child.kill()
            assert child.wait() == -signal.SIGKILL
        with closing(Ledger(path)) as ledger:
            assert ledger.begin(IDENTITY, resume=True)
            assert ledger.account.balance().holds
            known = {row[0] for row in ledger.store.db.execute("SELECT key FROM request")}
            assert {key(number) for number in range(diverted)} <= known
            attempts = ledger.store.db.execute("SELECT batch, number, token FROM attempt")
            jobs = {f"{ledger.run}-{batch:06d}-{number}-{token}" for batch, number, token in attempts}
            assert bound <= jobs
            assert ledger.store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
