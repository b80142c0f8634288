"""Feeds of a worker in a child process: counted one by one, their passwords hidden, and places that refuse them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from ftp_child import ftp_server
from worker_crawl import (
    SECONDS,
    Running,
    Site,
)

from scrapy_distributed.agent.post_mortem import last_error
from scrapy_distributed.wire.receipt import Receipt


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FEED_URI": "gopher://user:s3cret@host/%(batch)s.jl"}, "FEED_URI/FEEDS: Scrapy has disabled the feed"),
        ({"DISTRIBUTED_START_URL": "zb85:nonsense"}, "DISTRIBUTED_START_URL: found 'zb85:nonsense', expected"),
        ({"DISTRIBUTED_START_URL": '["http://a/", {"url": "x://b", "callback": "gone"}]'}, "element 1 is no request"),
        ({"DISTRIBUTED_RECEIPT_INTERVAL": "often"}, "DISTRIBUTED_RECEIPT_INTERVAL: found 'often'"),
    ],
    ids=["feed", "payload", "callback", "setting"],
)  # fmt: skip
def test_what_would_lose_items_or_requests_does_not_start(
    tmp_path: Path, site: Site, settings: dict[str, str], message: str
) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], **settings).end()
    assert crawl.receipt is None
    assert site.asked == []
    assert message in crawl.log
    assert "Error: " + message.partition(" found")[0] in crawl.log or "WireError" in crawl.log
    error = "\n".join(line for line in crawl.log.splitlines() if "ConfigError: " in line)
    assert "s3cret" not in error


def test_a_feed_that_was_not_stored_is_said_so(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="nostore://u:s3cret@host/7.jl").end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored) == (True, False)
    (before,) = [line.partition("At store: ")[2] for line in crawl.log.splitlines() if "At store: " in line]
    assert not Receipt.from_json(before).final
    assert receipt.settled == 1


# Several feeds


def test_each_feed_is_counted_by_itself(tmp_path: Path, site: Site) -> None:
    feeds = {
        f"file://{tmp_path}/%(batch)s.csv": {"format": "csv", "fields": ["url"]},
        f"file://{tmp_path}/first-%(batch)s.jl": {"format": "jl", "item_filter": "worker_spiders.FirstOnly"},
        f"file://{tmp_path}/part-%(batch_id)d-%(batch)s.jl": {"format": "jl", "batch_item_count": 2},
        f"file://{tmp_path}/none-%(batch)s.jl": {
            "format": "jl", "item_filter": "worker_spiders.NoneOf", "store_empty": False,
        },
    }  # fmt: skip
    urls = [{"url": f"{site.url}/ok", "dont_filter": True} for _ in range(3)]
    receipt = Running(tmp_path, site, urls, FEED_URI="", FEEDS=json.dumps(feeds)).end().receipt
    assert receipt is not None
    assert (receipt.stored, receipt.items, receipt.unexported) == (True, 3, 0)
    names = {(file.url.removeprefix(f"file://{tmp_path}/"), file.items, file.feed) for file in receipt.feeds}
    assert names == {
        ("7.csv", 3, 0), ("first-7.jl", 1, 1), ("part-1-7.jl", 2, 2), ("part-2-7.jl", 1, 2), ("none-7.jl", 0, 3),
    }  # fmt: skip
    assert (tmp_path / "7.csv").read_text().split() == ["url", *[f"{site.url}/ok"] * 3]
    assert len((tmp_path / "first-7.jl").read_text().splitlines()) == 1
    assert not (tmp_path / "none-7.jl").exists()


def test_an_item_that_one_feed_can_not_express_is_missing_in_both(tmp_path: Path, site: Site) -> None:
    """Scrapy does not come to the second feed then."""
    feeds = {
        f"file://{tmp_path}/%(batch)s.jl": {"format": "jl"},
        f"file://{tmp_path}/%(batch)s.csv": {"format": "csv", "item_filter": "worker_spiders.FirstOnly"},
    }
    request = {"url": f"{site.url}/ok", "callback": "not_for_json"}
    receipt = Running(tmp_path, site, [request], FEED_URI="", FEEDS=json.dumps(feeds)).end().receipt
    assert receipt is not None
    assert (receipt.stored, receipt.items, receipt.unexported) == (True, 2, 2)
    assert [file.items for file in sorted(receipt.feeds, key=lambda file: file.feed)] == [1, 1]


# Passwords


ACTIVE = {"ADDONS": '{"scrapy_distributed.Addon": 500}'}  # as each job has it


@pytest.mark.parametrize("settings", [{"FEED_URI": "%s"}, {"FEED_URI": "", "FEEDS": '{"%s": {"format": "jl"}}'}])
@pytest.mark.parametrize("stored", [True, False])
def test_nothing_that_a_job_leaves_has_the_password_of_its_feed(
    tmp_path: Path, site: Site, settings: dict[str, str], stored: bool
) -> None:
    uri = "nostore://u:s3cret@host/7.jl" if not stored else "keep://u:s3cret@host/7.jl"
    settings = {name: text.replace("%s", uri) for name, text in settings.items()}
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], **ACTIVE, **settings).end()
    assert crawl.receipt is not None
    assert crawl.receipt.stored is stored
    assert [file.url for file in crawl.receipt.feeds] == [uri.replace(":s3cret", "")]
    assert f"{'Stored' if stored else 'Error storing'} jl" in crawl.log.replace("jsonlines", "jl")
    assert "s3cret" not in crawl.log + crawl.said + crawl.receipt.to_json()
    assert stored or "OSError: disk full at nostore://u@host/7.jl" in crawl.log


def test_a_password_that_the_node_fills_in(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "s3cret")
    uri = "nostore://u:%(word)s@host/%(batch)s.jl"
    crawl = Running(
        tmp_path, site, [f"{site.url}/ok"], **ACTIVE, FEED_URI=uri, FEED_URI_PARAMS="worker_spiders.with_password"
    ).end()
    assert crawl.receipt is not None
    assert [file.url for file in crawl.receipt.feeds] == ["nostore://u@host/7.jl"]
    assert "s3cret" not in crawl.log + crawl.said + crawl.receipt.to_json()
    assert "s3cret" not in " ".join(crawl.command)
    assert (tmp_path / "uri").read_text() == "nostore://u:s3cret@host/7.jl"


# Places that refuse


@pytest.mark.parametrize(
    ("uri", "options", "words"),
    [
        ("file:///proc/nope/%(batch)s.jl", {}, "can't be written here: FileNotFoundError: [Errno 2]"),
        ("file://FOLDER/in_the_way/%(batch)s.jl", {}, "in_the_way"),
        ("ftp://SERVER/folder/%(batch)s.jl", {}, "can't be written here: error_perm: 550 No folders here"),
        ("file://FOLDER/%(nobody)s/%(batch)s.jl", {}, "it has a placeholder that nothing fills in"),
        ("file://FOLDER/%(batch)s.jl", {"item_export_kwargs": {"nope": 1}}, "TypeError: "),
        ("file://FOLDER/%(batch)s.jl", {"postprocessing": ["nope.Plugin"]}, "ModuleNotFoundError: No module named"),
    ],
)
def test_a_feed_that_can_not_be_opened_ends_its_job_before_the_first_page(
    tmp_path: Path, site: Site, uri: str, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "in_the_way").write_text("no folder")
    with ftp_server(tmp_path) if "SERVER" in uri else contextlib.nullcontext() as server:
        uri = uri.replace("FOLDER", str(tmp_path)).replace("ftp://SERVER", server.url if server else "")
        feeds = json.dumps({f"file://{tmp_path}/good.jl": {"format": "jl"}, uri: {"format": "jl", **options}})
        crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="", FEEDS=feeds).end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.finish_reason) == (True, False, "feed_refused")
    assert site.asked == []
    said = last_error(crawl.log)
    assert said.startswith("scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: the feed in ")
    assert words in said
    assert not list(tmp_path.glob("*.jl")) + list(tmp_path.glob(".probe-*"))


def let_in(door: socket.socket, port: int) -> None:
    """Connect all who come to *door* with *port* of this machine, until it is closed."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        while True:
            client = stack.enter_context(door.accept()[0])
            server = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()


def test_an_ftp_server_that_is_away_for_a_moment(tmp_path: Path, site: Site) -> None:
    with ftp_server(tmp_path) as server, socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # and nobody listens: refused
        uri = f"ftp://127.0.0.1:{door.getsockname()[1]}/%(batch)s.jl"
        running = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI=uri)
        running.when(lambda receipt: "ConnectionRefusedError" in running.log.read_text())
        door.listen()
        threading.Thread(target=let_in, args=(door, server.port), daemon=True).start()
        receipt = running.end().receipt
        with contextlib.suppress(OSError):  # a Mac knows no such thing of a socket that listens
            door.shutdown(socket.SHUT_RDWR)  # ends accept, which a close does not
        assert server.landed() == ["7.jl"]
    assert receipt is not None
    assert (receipt.stored, receipt.items) == (True, 1)


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_place_that_refuses_for_a_while(tmp_path: Path, site: Site, scheme: str) -> None:
    """Once the job has begun: the folder of the feed, or that of the temporary file which FTP sends at the end."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    urls = [f"{site.url}/hold", *(f"{site.url}/ok?{number}" for number in range(30))]
    with ftp_server(tmp_path) if scheme == "ftp" else contextlib.nullcontext() as server:
        uri = f"{server.url}/%(batch)s.jl" if server else f"file://{folder}/%(batch)s.jl"
        running = Running(
            tmp_path, site, urls, FEED_URI=uri, FEED_TEMPDIR=str(folder),
            CONCURRENT_REQUESTS="1", DOWNLOAD_DELAY="0.2", RANDOMIZE_DOWNLOAD_DELAY="False",
        )  # fmt: skip
        assert site.held.wait(SECONDS)
        folder.rename(moved)
        folder.write_text("in the way")
        site.release.set()
        running.when(lambda receipt: "Error caught on signal handler" in running.log.read_text())
        folder.unlink()
        moved.rename(folder)
        receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.items, receipt.finish_reason) == (True, 31, "finished")
    assert 0 < receipt.feeds[0].items < 31, "Scrapy has stored a part"
    assert not receipt.stored


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, site: Site) -> None:
    """The kernel says so when the buffer goes there, and part of a line may be on the disk."""
    (tmp_path / "7.jl").symlink_to("/dev/full")
    urls = [f"{site.url}/ok?{number}{'x' * 2000}" for number in range(9)]
    crawl = Running(tmp_path, site, urls, FEED_URI=f"file://{tmp_path}/%(batch)s.jl").end()
    assert "OSError: [Errno 28] No space left on device" in crawl.log
    assert crawl.receipt is not None
    assert (crawl.receipt.final, crawl.receipt.stored, crawl.receipt.items) == (True, False, 9)


def test_without_a_feed_the_receipt_is_final_and_stored(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="").end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.items, receipt.feeds) == (True, True, 1, ())
