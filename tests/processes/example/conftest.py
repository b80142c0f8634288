"""One FTP server for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ftp_child import FtpChild, ftp_server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpChild]:
    with ftp_server(tmp_path_factory.mktemp("ftp")) as child:
        yield child


@pytest.fixture
def landing(running: FtpChild) -> FtpChild:
    """The one that runs, with empty folders and an empty log."""
    running.clear()
    return running
