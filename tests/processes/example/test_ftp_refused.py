"""What the example's FTP server refuses: names, commands, users, and folders and ports of its own."""

from __future__ import annotations

import ftplib
import subprocess
from pathlib import Path

import pytest
from ftp_child import FtpChild, command
from ftp_clients import LINE, client, upload


@pytest.mark.parametrize(
    "line",
    [
        *("RETR 1.jl", "DELE 1.jl", "RNFR 1.jl", "RNTO 2.jl", "REST 1", "SIZE 1.jl", "MDTM 1.jl", "STOU", "RMD /"),
        *("LIST", "NLST", "MLSD", "MLST", "STAT", "STAT /", "SITE CHMOD 777 1.jl", "FEAT", "CDUP", "XMKD a"),
    ],
)
def test_all_else_is_refused(server: FtpChild, line: str) -> None:
    upload(server, "1.jl", LINE)
    with client(server) as ftp:
        ftp.makepasv()
        with pytest.raises(ftplib.error_perm, match=r"^50[02] "):
            ftp.sendcmd(line)
    assert (server.items / "1.jl").read_bytes() == LINE


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((".1.jl", 553), ("/", 553), ("..", 553), ("a\0b.jl", 553), ("a\tb.jl", 553), ("x" * 201, 553)),
        *(("a/1.jl", 550), ("/a/b/1.jl", 550), ("../../a/1.jl", 550)),
    ],
)
def test_names_that_are_refused(server: FtpChild, name: str, code: int) -> None:
    with client(server) as ftp, pytest.raises(ftplib.error_perm, match=rf"^{code} "):
        ftp.sendcmd(f"STOR {name}")
    assert server.landed() == list(server.staging.iterdir()) == []
    assert server.log.count("refused") == 1


def test_a_name_that_is_not_utf_8(server: FtpChild) -> None:
    with client(server) as ftp:
        ftp.encoding = "latin-1"
        with pytest.raises(ftplib.error_perm, match=r"^553 "):
            ftp.sendcmd("STOR é.jl")


def test_only_anonymous_users(server: FtpChild) -> None:
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", server.port)
        with pytest.raises(ftplib.error_perm, match=r"^530 "):
            ftp.login("root", "x")


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


def test_a_staging_folder_that_another_server_uses(server: FtpChild) -> None:
    assert refusal(0, server.staging, server.items).startswith(f"{server.staging}: another server uses it")


def test_what_can_be_no_port(tmp_path: Path) -> None:
    found = subprocess.run(command(65536, tmp_path, tmp_path), capture_output=True, text=True, timeout=30)
    assert found.returncode == 2
    assert "65536 is no port, expected 0 to 65535" in found.stderr


def test_a_port_that_is_taken(server: FtpChild, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    message = refusal(server.port, tmp_path / "other", server.items)
    assert message.startswith(f"127.0.0.1:{server.port}: can't listen there: ")
