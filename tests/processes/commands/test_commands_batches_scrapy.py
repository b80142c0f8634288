"""``scrapy batches`` as a command of Scrapy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ledgers import settled


def test_as_a_command_of_scrapy(tmp_path: Path) -> None:
    def scrapy(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCRAPY")}
        command = [sys.executable, "-m", "scrapy", "batches", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)

    settled(tmp_path / "s.sqlite")
    done = scrapy("check", "--ledger", "s.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("  settled\n")
    assert scrapy("check", "--ledger", "gone.sqlite").returncode == 2
    (tmp_path / "1.jl").write_text("{}\n{}\n")
    done = scrapy("merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.jl").read_text() == "{}\n{}\n"
    wrong = scrapy("chekc")
    assert wrong.returncode == 2
    assert "chekc" in wrong.stderr + wrong.stdout
