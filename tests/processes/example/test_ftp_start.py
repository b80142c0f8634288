"""What keeps the example's FTP server from starting: it says so in a line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ftp_child import FtpChild, command


def refusal(port: int, staging: Path, items: Path) -> str:
    """What a server that does not start says: one line."""
    found = subprocess.run(command(port, staging, items), capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (1, "", 1)
    return found.stderr


@pytest.mark.parametrize(
    ("staging", "items", "message"),
    [
        ("none", "items", "none: found no folder there"),
        ("staging", "none", "none: found no folder there"),
        ("items/staging", "items", "items/staging: it is in the items folder"),
        ("items", "items", "items: it is in the items folder"),
        ("staging", "/proc", "staging: can't link a file of it into /proc: "),
    ],
)
def test_folders_that_can_not_be_used(tmp_path: Path, staging: str, items: str, message: str) -> None:
    for name in ("staging", "items", "items/staging"):
        (tmp_path / name).mkdir()
    assert refusal(0, tmp_path / staging, tmp_path / items).startswith(f"{tmp_path}/{message}")
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_staging_folder_that_another_server_uses(landing: FtpChild) -> None:
    assert refusal(0, landing.staging, landing.items).startswith(f"{landing.staging}: another server uses it")


def test_what_can_be_no_port(tmp_path: Path) -> None:
    found = subprocess.run(command(65536, tmp_path, tmp_path), capture_output=True, text=True, timeout=30)
    assert found.returncode == 2
    assert "65536 is no port, expected 0 to 65535" in found.stderr


def test_a_port_that_is_taken(landing: FtpChild, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    message = refusal(landing.port, tmp_path / "other", landing.items)
    assert message.startswith(f"127.0.0.1:{landing.port}: can't listen there: ")
