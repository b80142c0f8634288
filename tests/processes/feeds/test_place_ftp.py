"""Whether an FTP server of another process takes a feed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ftplib import error_perm
from pathlib import Path

import pytest
from ftp_child import ftp_server
from placing import BOTH, tried
from scrapy.extensions.feedexport import FTPFeedStorage

from scrapy_distributed.feeds import place
from scrapy_distributed.feeds.place import Trial

SERVER = """
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("u", "p", sys.argv[1], perm=sys.argv[2])
server = FTPServer(("127.0.0.1", 0), FTPHandler)
print(server.address[1], flush=True)
server.serve_forever()
"""


@contextmanager
def server(folder: Path, permissions: str) -> Iterator[str]:
    """A server that lets the user ``u`` do what *permissions* say. Yields its address, with the user's password."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(folder), permissions]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"ftp://u:p@127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


ALL = "elradfmwMT"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_server_that_takes_it_keeps_nothing_of_it(tmp_path: Path, overwrite: bool) -> None:
    with server(tmp_path, ALL) as address:
        storage = FTPFeedStorage(f"{address}/a/b/1.jl", feed_options={"overwrite": overwrite})
        assert tried(storage, thorough=True) is Trial.WRITTEN
        assert os.listdir(tmp_path) == []
        assert tried(storage) is Trial.REACHED
    assert os.listdir(tmp_path / "a" / "b") == [], "made as the storage would make it"


def test_a_server_that_lets_nothing_be_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with server(tmp_path, "elw") as address:
        assert tried(FTPFeedStorage(f"{address}/1.jl"), thorough=True) is Trial.LEFT
    assert os.listdir(tmp_path) == ["probe-job"]
    assert "Can't remove probe-job from FTP server 127.0.0.1: 550" in caplog.text


def test_a_server_that_knows_no_way_to_remove_is_not_written_to(tmp_path: Path) -> None:
    """The example's: whoever reads its folder would find the probe there."""
    with ftp_server(tmp_path) as child:
        assert tried(FTPFeedStorage(f"{child.url}/1.jl"), thorough=True) is Trial.REACHED
        assert child.landed() == []
        with pytest.raises(error_perm, match="No folders here"):
            tried(FTPFeedStorage(f"{child.url}/folder/1.jl"))


@BOTH
def test_a_server_that_refuses(tmp_path: Path, thorough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once: who gives a wrong password again and again is locked out."""
    monkeypatch.setattr(place, "FTP_PAUSES", (600.0,))
    with server(tmp_path, "el") as address:
        with pytest.raises(error_perm, match="530"):
            tried(FTPFeedStorage(f"{address.replace('u:p', 'u:x')}/1.jl"), thorough=thorough)
        with pytest.raises(error_perm, match="550"):
            tried(FTPFeedStorage(f"{address}/folder/1.jl"), thorough=thorough)
    assert os.listdir(tmp_path) == []


@BOTH
def test_the_temporary_folder_counts(tmp_path: Path, thorough: bool) -> None:
    with server(tmp_path, ALL) as address:
        storage = FTPFeedStorage(f"{address}/1.jl")
        with pytest.raises(OSError, match="Not a Directory"):
            tried(storage, thorough=thorough, temporary=tmp_path / "gone")
        tried(storage, thorough=thorough, temporary=tmp_path)
    assert os.listdir(tmp_path) == []
