"""Many connections to the example's FTP server, and those that only wait."""

from __future__ import annotations

import ftplib
import io
import os
import resource
import socket
from contextlib import ExitStack

import pytest
from crawling import wait_for
from ftp_child import FtpChild
from ftp_clients import LINE, LINES, SESSIONS, SESSIONS_OF_ADDRESS, Upload, client, upload, waiting, watched


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([], id="nothing"),
        pytest.param(["USER anonymous", "PASS x", "PASV"], id="PASV"),
        pytest.param(["USER anonymous", "PASS x", "EPSV", "STOR a.jl"], id="STOR"),
    ],
)
def test_connections_that_only_wait_keep_nobody_out(server: FtpChild, commands: list[str]) -> None:
    """More of them than there may be, of one address: from there and from elsewhere uploads land all the same."""
    with waiting(server, SESSIONS + 50, *commands):
        assert upload(server, "1.jl", LINES).startswith("226")
        with ftplib.FTP(timeout=10, source_address=("127.0.0.2", 0)) as ftp:
            ftp.connect("127.0.0.1", server.port)
            ftp.login()
            assert ftp.storbinary("STOR 2.jl", io.BytesIO(LINES)).startswith("226")
    assert server.landed() == ["1.jl", "2.jl"]
    wait_for(lambda: not server.staged())
    assert "ended a session of 127.0.0.1 that was silent" in server.log


def test_a_server_without_a_descriptor_for_a_connection_takes_it_later(server: FtpChild) -> None:
    had = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    before = resource.prlimit(
        server.process.pid, resource.RLIMIT_NOFILE, (had, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as line:
        wait_for(lambda: "can't take a connection, and will try again: Too many open files" in server.log)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        assert line.recv(100).startswith(b"220 ")
    assert upload(server, "1.jl", LINES).startswith("226")


def test_a_port_that_is_opened_for_a_client_that_is_gone_is_closed(server: FtpChild) -> None:
    had = watched(server)
    for _ in range(20):
        with client(server) as ftp:
            assert ftp.sock is not None
            ftp.sock.sendall(b"NOOP\r\nPASV\r\n")
            ftp.close()
    wait_for(lambda: watched(server) <= had, 10)


def test_a_fleet_behind_one_address(server: FtpChild) -> None:
    """Uploads are left alone, also by those who only wait."""
    count = SESSIONS_OF_ADDRESS - 5
    with ExitStack() as stack:
        uploads = [stack.enter_context(Upload(server, f"{number:03}.jl")) for number in range(count)]
        with waiting(server, 50):
            for one in uploads:
                one.data.sendall(LINE)
                one.data.close()
            assert all(one.ftp.voidresp().startswith("226") for one in uploads)
    assert len(server.landed()) == count


def test_an_address_that_has_all_its_sessions_at_work(server: FtpChild) -> None:
    """It has to wait, others need not."""
    with ExitStack() as stack:
        for number in range(SESSIONS_OF_ADDRESS):
            stack.enter_context(Upload(server, f"{number:03}.jl"))
        with ftplib.FTP(timeout=10) as ftp, pytest.raises(ftplib.error_temp, match=r"^421 Too many connections"):
            ftp.connect("127.0.0.1", server.port)
        with ftplib.FTP(timeout=10, source_address=("127.0.0.2", 0)) as ftp:
            ftp.connect("127.0.0.1", server.port)
            ftp.login()
            assert ftp.storbinary("STOR 2.jl", io.BytesIO(LINES)).startswith("226")
    wait_for(lambda: not server.staged())
