"""Each program of the example runs by its path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from crawling import EXAMPLE


@pytest.mark.parametrize("program", ["site/site_server", "landing/ftp_server", "analysis/shifts", "demo/demo"])
def test_a_program_runs_by_its_path_from_anywhere(program: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(EXAMPLE / f"{program}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(f"usage: {Path(program).name}.py ")
