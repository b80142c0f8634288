"""Whether a feed can be written at its place: real folders and real FTP servers, and what is left behind there."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from placing import BOTH, tried
from scrapy.extensions.feedexport import FileFeedStorage, FTPFeedStorage, StdoutFeedStorage

from scrapy_distributed.feeds import place
from scrapy_distributed.feeds.place import Trial
from scrapy_distributed.results.whole_file import WholeFileStorage

FOLDERS = pytest.mark.parametrize("kind", [FileFeedStorage, WholeFileStorage])


# Folders


@FOLDERS
@BOTH
def test_a_folder_that_is_there(tmp_path: Path, kind: Any, thorough: bool) -> None:
    (tmp_path / "1.jl").write_text("there\n")
    assert tried(kind(f"file://{tmp_path}/1.jl"), thorough=thorough) is Trial.WRITTEN
    assert os.listdir(tmp_path) == ["1.jl"]
    assert (tmp_path / "1.jl").read_text() == "there\n"


@FOLDERS
def test_a_folder_that_is_to_be_made(tmp_path: Path, kind: Any) -> None:
    assert tried(kind(f"{tmp_path}/a/b/1.jl"), thorough=True) is Trial.WRITTEN
    assert os.listdir(tmp_path) == []
    assert tried(kind(f"{tmp_path}/a/b/1.jl")) is Trial.WRITTEN
    assert os.listdir(tmp_path / "a" / "b") == []


@FOLDERS
def test_nodes_that_try_the_same_missing_folder_at_once_leave_nothing(tmp_path: Path, kind: Any) -> None:
    """One that has made it can't remove it while another has its file there."""

    def attempt(number: int) -> Trial:
        return tried(kind(f"{tmp_path}/a/b/1.jl"), f"probe-{number}", thorough=True)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attempt, range(200))) == {Trial.WRITTEN}
    assert os.listdir(tmp_path) == []


@FOLDERS
@BOTH
def test_a_folder_that_can_not_be_made(tmp_path: Path, kind: Any, thorough: bool) -> None:
    with pytest.raises(FileNotFoundError, match="'/proc/nope'"):
        tried(kind("file:///proc/nope/1.jl"), thorough=thorough)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(OSError, match=name):
            tried(kind(f"{tmp_path}/{name}/1.jl"), thorough=thorough)


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(PermissionError):
        tried(WholeFileStorage(f"{tmp_path}/a/1.jl"), thorough=True)
    assert os.listdir(tmp_path) == []


def test_a_file_that_can_not_be_removed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unlink(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        assert tried(FileFeedStorage(f"{tmp_path}/1.jl")) is Trial.LEFT
    assert f"Can't remove {tmp_path}/.probe-job" in caplog.text


def test_storages_that_nobody_knows_are_let_be(tmp_path: Path) -> None:
    class Own(FileFeedStorage):
        def open(self, spider: Any) -> Any:
            raise AssertionError

    assert tried(Own(f"{tmp_path}/a/1.jl"), thorough=True) is Trial.UNTRIED
    assert tried(StdoutFeedStorage("stdout:"), thorough=True) is Trial.UNTRIED
    assert os.listdir(tmp_path) == []


def test_a_server_that_is_away_for_good(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "FTP_PAUSES", (0.01, 0.01))
    with pytest.raises(ConnectionRefusedError):
        tried(FTPFeedStorage(f"ftp://127.0.0.1:{unused_port}/1.jl"))


def test_a_server_that_says_to_come_later_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "FTP_PAUSES", (0.01,))
    answers = [b"421 Too many.\r\n", b"220 Hello.\r\n331\r\n230 In.\r\n250 There.\r\n250 There.\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(answer)
                    while connection.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        assert tried(FTPFeedStorage(f"ftp://u@127.0.0.1:{listening.getsockname()[1]}/1.jl")) is Trial.REACHED
        thread.join(10)


def test_a_server_that_is_slow_is_waited_for_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(place, "FTP_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:  # the kernel accepts, and nobody answers
        storage = FTPFeedStorage(f"ftp://127.0.0.1:{listening.getsockname()[1]}/1.jl")
        assert tried(storage) is Trial.UNTRIED
        assert "does not answer within 0.1 s" in caplog.text
        with pytest.raises(TimeoutError):
            tried(storage, thorough=True)
