"""Feeds that append to a file, when a run is taken up again. Scrapy's own exporter."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from scrapy import Spider
from scrapy.extensions.feedexport import FeedExporter, FileFeedStorage
from scrapy.utils.defer import deferred_from_coro, ensure_awaitable
from scrapy.utils.test import get_crawler
from twisted.internet import reactor
from twisted.internet.task import deferLater

from scrapy_distributed.feeds.appending import Appending


class Project(FileFeedStorage):
    """A storage of a project, which may do anything."""


class Writing:
    """A command that writes the feeds *options*; *before*: what the ledger knows of them, as far as it does not know
    what was written there."""

    def __init__(self, folder: Path, options: dict[str, Any], before: dict[str, Any], **settings: Any) -> None:
        self.crawler = get_crawler(Spider, {"FEEDS": options, **settings})
        self.crawler.spider = Spider(name="s")
        self.exporter = FeedExporter.from_crawler(self.crawler)
        self.noted: dict[str, int] = {}
        self.appending = appending = Appending(self.exporter)
        appending.before = {path: (one, 0, "") if isinstance(one, int) else one for path, one in before.items()}
        appending.kept, appending.note = folder, self.noted.__setitem__
        self.exporter.open_spider(self.crawler.spider)

    async def write(self, *items: int) -> None:
        for item in items:
            self.exporter.item_scraped({"n": item}, self.crawler.spider)
            await deferLater(reactor, 0)  # a part of a feed is closed meanwhile
        await deferred_from_coro(ensure_awaitable(self.exporter.close_spider(self.crawler.spider)))


def at_no_time(params: dict[str, Any], spider: Spider) -> dict[str, Any]:
    """So that all parts of a feed are one file."""
    return {**params, "batch_time": ""}


def lines(*numbers: int) -> str:
    return "".join(f'{{"n": {number}}}\n' for number in numbers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the spool."""
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest_twisted.ensureDeferred
async def test_the_files_of_a_run_are_noted_when_it_begins_and_not_again(tmp_path: Path, folder: Path) -> None:
    """What is appended between that and the first item is somebody else's, and stays."""
    old, known, whole = (tmp_path / f"{name}.jl" for name in ("old", "known", "whole"))
    for file in (old, known, whole):
        file.write_text(lines(1))
    options = {
        str(old): {"format": "jl"},
        str(known): {"format": "jl"},
        str(whole): {"format": "jl", "overwrite": True},
    }
    writing = Writing(folder, options, {str(known): len(lines(1))})
    writing.appending.begin(slot.storage for slot in writing.exporter.slots)
    assert writing.noted == {str(old): len(lines(1))}
    old.write_text(lines(1, 2))
    writing.noted.clear()
    await writing.write(3)
    assert (old.read_text(), known.read_text(), whole.read_text()) == (lines(1, 2, 3), lines(1, 3), lines(3))
    assert writing.noted == {}


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_new_to_the_run_is_noted_before_it_is_written(tmp_path: Path, folder: Path) -> None:
    old, new = tmp_path / "old.jl", tmp_path / "new.jl"
    old.write_text(lines(1))
    writing = Writing(folder, {str(old): {"format": "jl"}, str(new): {"format": "jl"}}, {})
    assert writing.noted == {}
    await writing.write(2, 3)
    assert writing.noted == {str(old): len(lines(1)), str(new): 0}
    assert (old.read_text(), new.read_text()) == (lines(1, 2, 3), lines(2, 3))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["out.jl", "out.csv", "\u00fc" * 120 + ".jl"])
@pytest_twisted.ensureDeferred
async def test_what_an_earlier_command_has_written_is_cut_off_and_kept(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / name
    for again in range(1, 3):  # also for the second time, with the same process id
        out.write_text(lines(1) + lines(2) + '{"n": 3')
        writing = Writing(folder, {str(out): {"format": "jl"}}, {str(out): len(lines(1))})
        await writing.write(2, 3, 4)
        assert out.read_text() == lines(1, 2, 3, 4)
        assert writing.noted == {}
        kept = [path for path in folder.iterdir() if path.suffix == ".cut"]  # what the spool leaves alone
        assert [path.read_text() for path in kept] == [lines(2) + '{"n": 3'] * again
    assert caplog.text.count(f"had {len(lines(1))} bytes when this run began, and has {len(lines(1, 2)) + 7}") == 2
    assert str(kept[0]) in caplog.text or str(kept[1]) in caplog.text


@pytest.mark.parametrize("name", ["out.jl", "out.csv", "out.json", "out.xml", "out.pickle", "out.jl.gz"])
@pytest_twisted.ensureDeferred
async def test_of_what_the_run_has_written_itself_no_copy_is_kept(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO)
    out, kind = tmp_path / name, name.split(".")[1]
    options: dict[str, Any] = {"format": kind}
    if name.endswith(".gz"):
        options["postprocessing"] = ["scrapy.extensions.postprocessing.GzipPlugin"]
    out.write_text(lines(1))
    writing = Writing(folder, {str(out): options}, {})
    await writing.write(2, 3)
    for _ in range(3):
        assert out.stat().st_size > len(lines(1))
        known = {
            path: (before, *writing.appending.written()[path]) for path, before in {str(out): len(lines(1))}.items()
        }
        writing = Writing(folder, {str(out): options}, known)
        await writing.write(2, 3, 4)
    assert list(folder.iterdir()) == []
    assert caplog.text.count("nothing else was there") == 3
    if kind == "jl" and name == "out.jl":
        assert out.read_text() == lines(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda own: own + lines(77), [lines(77)]),  # somebody else's, or of a command that was killed
        (lambda own: lines(77) + own, [lines(77, 2, 3)]),
        (lambda own: own.replace("2", "7"), [lines(7, 3)]),
        (lambda own: own[:-3], [lines(2, 3)[:-3]]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_may_be_somebody_elses_is_kept(
    tmp_path: Path, folder: Path, change: Callable[[str], str], kept: list[str]
) -> None:
    out = tmp_path / "out.jl"
    out.write_text(lines(1))
    writing = Writing(folder, {str(out): {"format": "jl"}}, {})
    await writing.write(2, 3)
    out.write_text(lines(1) + change(lines(2, 3)))
    known = {str(out): (len(lines(1)), *writing.appending.written()[str(out)])}
    await Writing(folder, {str(out): {"format": "jl"}}, known).write(2, 3)
    assert out.read_text() == lines(1, 2, 3)
    assert [path.read_text() for path in folder.iterdir()] == kept


@pytest.mark.parametrize("there", [0, 1, None])
@pytest_twisted.ensureDeferred
async def test_where_nothing_more_is_there_nothing_is_cut(tmp_path: Path, folder: Path, there: int | None) -> None:
    """Also where somebody has made it shorter, or removed it, since."""
    out = tmp_path / "out.jl"
    if there is not None:
        out.write_text(lines(*range(there)))
    writing = Writing(folder, {str(out): {"format": "jl"}}, {str(out): len(lines(1))})
    await writing.write(7)
    assert out.read_text() == lines(*range(there or 0), 7)
    assert (writing.noted, list(folder.iterdir())) == ({}, [])


@pytest_twisted.ensureDeferred
async def test_a_file_is_cut_once_and_not_at_each_part_of_the_feed(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out.jl"
    out.write_text(lines(1, 2))
    options = {"format": "jl", "batch_item_count": 2, "uri_params": at_no_time}
    writing = Writing(folder, {f"{out}%(batch_time)s": options}, {str(out): len(lines(1))})
    await writing.write(2, 3, 4, 5, 6)
    assert out.read_text() == lines(1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("options", "settings"),
    [({"overwrite": True}, {}), ({}, {"FEED_STORAGES": {"file": Project, "": Project}})],
    ids=["overwritten", "a storage of the project"],
)
@pytest_twisted.ensureDeferred
async def test_others_are_left_alone(
    tmp_path: Path, folder: Path, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    out = tmp_path / "out.jl"
    out.write_text(lines(1, 2))
    writing = Writing(folder, {str(out): {"format": "jl", **options}}, {str(out): len(lines(1))}, **settings)
    await writing.write(7)
    assert out.read_text() == (lines(7) if options else lines(1, 2, 7))
    assert (writing.noted, list(folder.iterdir())) == ({}, [])


@pytest_twisted.ensureDeferred
async def test_a_path_has_one_name(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.jl").write_text(lines(1, 2))
    writing = Writing(folder, {"file://" + str(tmp_path / "out.jl"): {"format": "jl"}}, {})
    await writing.write(3)
    assert writing.noted == {str(tmp_path / "out.jl"): len(lines(1, 2))}
    again = Writing(folder, {"out.jl": {"format": "jl"}}, dict(writing.noted))
    await again.write(3)
    assert (tmp_path / "out.jl").read_text() == lines(1, 2, 3)


@pytest_twisted.ensureDeferred
async def test_what_can_not_be_kept_is_not_cut_off(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out.jl"
    out.write_text(lines(1, 2))

    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    writing = Writing(folder, {str(out): {"format": "jl"}}, {str(out): len(lines(1))})
    with pytest.raises(OSError, match="No space left"):
        writing.exporter.item_scraped({"n": 2}, writing.crawler.spider)  # type: ignore[arg-type]
    assert out.read_text() == lines(1, 2)


@pytest_twisted.ensureDeferred
async def test_what_a_full_disk_has_not_taken_is_not_known(tmp_path: Path, folder: Path) -> None:
    """It is tried again when the file is closed."""
    out = tmp_path / "out.jl"
    writing = Writing(folder, {str(out): {"format": "jl"}}, {})
    writing.exporter.item_scraped({"n": 1}, writing.crawler.spider)  # type: ignore[arg-type]
    known = writing.appending.written()
    assert out.read_text() == lines(1)
    file: Any = writing.exporter.slots[0].file
    full, kept = os.open("/dev/full", os.O_WRONLY), os.dup(file.fileno())
    os.dup2(full, file.fileno())
    writing.exporter.item_scraped({"n": 2}, writing.crawler.spider)  # type: ignore[arg-type]
    assert writing.appending.written() == known
    os.dup2(kept, file.fileno())
    os.close(full)
    os.close(kept)
    await writing.write()
    assert out.read_text() == lines(1, 2)
    assert writing.appending.written()[str(out)][0] == len(lines(1, 2))
