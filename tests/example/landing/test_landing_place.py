"""The folder where uploads land, without a server."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from landing import LandingPlace

LINE = b'{"title": "2 bed flat, pool", "price": 1000.0}\n'


@pytest.mark.parametrize("step", ["sync_folder", "Path.unlink"])
def test_a_file_that_has_landed_has_landed_whatever_fails_then(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers may have seen it: "not stored" would have its batch crawled again."""
    for name in ("staging", "items"):
        (tmp_path / name).mkdir()
    place = LandingPlace(tmp_path / "staging", tmp_path / "items")
    arrival = place.receive("1.jl")
    arrival.write(LINE)

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(f"landing.{step}", fail)
        arrival.land(arrival.examination())
        arrival.close()
    assert (tmp_path / "items" / "1.jl").read_bytes() == LINE
    assert len(list((tmp_path / "staging").iterdir())) == (step == "Path.unlink")
    assert not [path for path in Path("/proc/self/fd").iterdir() if "1.jl." in os.path.realpath(path)]
    assert "after 1.jl had landed: [Errno 5] Input/output error" in caplog.text
