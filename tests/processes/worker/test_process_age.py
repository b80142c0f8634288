"""How long a process has lived: by the system's own account, or at least as long as it has computed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from scrapy_distributed.worker.process_age import process_age

STAT = Path("/proc/self/stat")
CHILD = (
    "import time; time.sleep(0.5); from scrapy_distributed.worker.process_age import process_age; print(process_age())"
)


@pytest.mark.skipif(not STAT.exists(), reason="the system has no /proc")
def test_it_counts_from_the_start_of_the_process() -> None:
    before = time.monotonic()
    output = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, check=True, text=True, timeout=60)
    assert 0.5 <= float(output.stdout) <= time.monotonic() - before + 0.02  # a clock tick, twice


@pytest.mark.skipif(not STAT.exists(), reason="the system has no /proc")
def test_the_name_of_a_program_may_hold_anything(tmp_path: Path) -> None:
    other = tmp_path / "stat"
    other.write_bytes(STAT.read_bytes().replace(b"(", b"(\xff) 1 2 (", 1))
    assert process_age(other) == pytest.approx(process_age(), abs=0.1)


@pytest.mark.parametrize("content", [None, b"", b"1 (x) S 1 2", b"1 (x) " + b"no " * 50])
def test_without_that_it_is_the_cpu_time(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "stat"
    if content is not None:
        file.write_bytes(content)
    assert time.process_time() <= process_age(file) + 0.1 <= time.process_time() + 0.2
