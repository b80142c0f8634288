"""The passwords that a local fleet has made: who can read them, where they are sent, and when they are of no use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import addresses, local_credentials
from scrapy_distributed.fleet.local_credentials import (
    Credentials,
    all_running,
    make_folder,
    make_own,
    of_url,
    password_of,
    shared,
)
from scrapy_distributed.fleet.local_node import LocalNode

KNOWN = Credentials(name="scrapyd1", url="http://127.0.0.1:16800", username="scrapy", password="s3cr3t-Pa55")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_folder()
    return tmp_path / "state/scrapy_distributed/nodes"


def test_they_are_found_while_the_fleet_runs(state: Path) -> None:
    with shared([KNOWN]):
        assert of_url("http://127.0.0.1:16800") == of_url("http://localhost:16800/") == KNOWN
        assert all_running() == [KNOWN]
        assert [(one.username, one.password) for one in addresses(["localhost:16800"])] == [("scrapy", KNOWN.password)]
        assert [path.stat().st_mode & 0o777 for path in state.iterdir()] == [0o600]
    assert of_url(KNOWN.url) is None
    assert all_running() == []
    assert list(state.iterdir()) == []


def test_those_of_a_node_that_has_ended_are_forgotten(state: Path) -> None:
    """The fleet lives on, and somebody else may have the port by then."""
    other = replace(KNOWN, name="scrapyd2", url="http://127.0.0.1:16801")
    with shared([KNOWN, other]) as forget:
        forget(KNOWN.url)
        forget("http://127.0.0.1:1")
        assert (of_url(KNOWN.url), of_url(other.url)) == (None, other)
    assert os.listdir(state) == []


@pytest.mark.parametrize(
    "url", ["http://scrapyd1:16800", "https://127.0.0.1:16800", "http://127.0.0.1:16801", "http://127.0.0.1:16800/node",
            "http://127.0.0.2:16800", "http://localhost.example:16800"],
)  # fmt: skip
def test_they_are_sent_nowhere_else(url: str) -> None:
    with shared([KNOWN]):
        assert of_url(url) is None


def test_what_is_written_by_hand_comes_first(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login n password netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    with shared([KNOWN]):
        assert [one.password for one in addresses(["u:mine@127.0.0.1:16800", "127.0.0.1:16801"])] == ["mine", "netrc"]
        assert [one.password for one in addresses(["127.0.0.1:16800"])] == [KNOWN.password]


def test_what_a_killed_fleet_has_left_is_of_no_use(state: Path) -> None:
    with shared([KNOWN]):
        left = (state / "16800").read_bytes()
    (state / "16800").write_bytes(left)
    assert of_url(KNOWN.url) is None
    with shared([KNOWN]):  # the next one takes its place
        assert of_url(KNOWN.url) == KNOWN


def test_the_end_of_one_fleet_leaves_the_file_of_another(state: Path) -> None:
    newer = Credentials(name="scrapyd1", url=KNOWN.url, username="scrapy", password="newer")
    with shared([newer]):
        older = shared([KNOWN])
        older.__enter__()
        with shared([newer]):
            older.__exit__(None, None, None)
            assert of_url(KNOWN.url) == newer


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"name": "x"}', b"\xff"])
def test_a_file_that_is_none(state: Path, text: bytes) -> None:
    with shared([KNOWN]), open(state / "16800", "r+b") as file:
        file.truncate(0)
        file.write(text)
        file.flush()
        assert of_url(KNOWN.url) is None


def test_a_link_is_not_followed(state: Path, tmp_path: Path) -> None:
    with shared([KNOWN]):
        (state / "16800").rename(tmp_path / "elsewhere")
        (state / "16800").symlink_to(tmp_path / "elsewhere")
        assert of_url(KNOWN.url) is None


def test_a_password_is_kept_for_a_folder_and_is_hard_to_guess(tmp_path: Path) -> None:
    made = password_of(tmp_path / "fleet")
    assert len(made) == 32
    assert password_of(tmp_path / "fleet") == made
    assert password_of(tmp_path / "other") != made
    (tmp_path / "fleet/password").chmod(0o644)  # others may know it
    assert password_of(tmp_path / "fleet") != made
    assert (tmp_path / "fleet/password").stat().st_mode & 0o777 == 0o600
    (tmp_path / "fleet/password").write_text("")
    assert len(password_of(tmp_path / "fleet")) == 32


@pytest.mark.parametrize("planted", ["fifo", "link", "link to nowhere", "hard link", "folder"])
def test_what_somebody_has_put_in_place_of_a_password_is_refused_at_once(tmp_path: Path, planted: str) -> None:
    """A FIFO would keep its reader waiting, and a link would show another file, or be written through."""
    (tmp_path / "fleet").mkdir()
    file, other = tmp_path / "fleet/password", tmp_path / "other"
    if planted != "link to nowhere":
        other.write_text("another secret")
        other.chmod(0o600)
    {"fifo": lambda: os.mkfifo(file), "folder": file.mkdir, "hard link": lambda: os.link(other, file)}.get(
        planted, lambda: file.symlink_to(other)
    )()
    with pytest.raises(ConfigError, match="fleet/password: can't be used for the password of the nodes"):
        password_of(tmp_path / "fleet")
    assert (other.read_text() if other.exists() else None) == (None if "nowhere" in planted else "another secret")


def test_a_folder_that_others_may_write_or_replace_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "fleet").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(shared / "fleet")
    shared.chmod(0o777)
    node = LocalNode(name="n", folder=shared / "fleet")
    for use in (lambda: password_of(shared / "fleet"), lambda: password_of(tmp_path / "link"), node.spawn):
        with pytest.raises(ConfigError, match=f"everybody may write to {shared}: expected a folder of our own"):
            use()
    shared.chmod(0o1777)  # as /tmp: nobody can replace what is another's
    assert len(password_of(shared / "fleet")) == len(password_of(shared / "new")) == 32
    assert (shared / "new").stat().st_mode & 0o777 == 0o700
    (shared / "fleet").chmod(0o707)
    with pytest.raises(ConfigError, match="fleet: can't be used for passwords and nodes: everybody may write to it"):
        password_of(shared / "fleet")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="or no folder"):
        password_of(tmp_path / "file")


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="of another user"):
        password_of(tmp_path / "fleet")
    assert os.listdir(tmp_path / "fleet") == []
    monkeypatch.undo()
    if os.geteuid() == 0:
        os.chown(tmp_path / "fleet", 65534, 65534)
        with pytest.raises(ConfigError, match="fleet belongs to the user with the number 65534"):
            make_own(tmp_path / "fleet/scrapyd1")
        with pytest.raises(ConfigError, match="of another user"):
            make_own(tmp_path / "fleet")


def test_a_fifo_in_place_of_what_a_fleet_has_left_is_none(state: Path) -> None:
    os.mkfifo(state / "16800")
    assert of_url(KNOWN.url) is None
    assert all_running() == []


def test_no_password_is_in_what_is_shown() -> None:
    assert KNOWN.password not in repr(KNOWN)
    assert os.fspath(local_credentials.folder()).endswith("state/scrapy_distributed/nodes")
