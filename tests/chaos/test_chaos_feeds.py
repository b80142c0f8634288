"""Places for feeds that fail for a while: folders that refuse, disks that are full, servers that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arena import Fleet, Run, limit_files
from crawling import SiteChild, site
from ftp_child import FtpChild, ftp_server
from oracle import prove
from places import Folder
from trial import chaos

LONG = pytest.mark.chaos
SLOWLY = {"CONCURRENT_REQUESTS": 2}  # so that a batch takes longer than a fault
SMALL = {"DISTRIBUTED_BATCH_SIZE": 40}
FULL = 2000  # bytes of a file that a full disk takes: less than a feed, more than a receipt of a job under way
WHOLE = {"FEED_STORAGES": {"file": "scrapy_distributed.results.whole_file.WholeFileStorage"}}


def served(child: SiteChild) -> int:
    return int(child.stats()["properties_served"])


def for_a_while(run: Run, begins: Callable[[], object], ends: Callable[[], object], pages: int = 60) -> None:
    """The fault lasts until workers have come to so many pages more, or one of them has failed for it."""
    rejected = run.crawl.log.count("rejected")
    begins()
    before = served(run.site)
    run.wait_for(lambda: served(run.site) >= before + pages or run.crawl.log.count("rejected") > rejected or run.over)
    ends()


@contextmanager
def run_with_ftp(struck: Fleet, child: SiteChild, folder: Path, properties: int) -> Iterator[tuple[Run, FtpChild]]:
    (folder / "ftp").mkdir()
    with ftp_server(folder / "ftp") as server:
        yield Run(struck, child, folder, properties=properties, ftp=server, settings=SMALL, workers=SLOWLY), server


STORAGES = {
    "scrapys-own": ("file", {}),
    "whole-files": ("file", WHOLE),
    "upload": ("upload", {}),
}


@pytest.mark.parametrize(
    "storage", [pytest.param(name, marks=() if name == "whole-files" else LONG) for name in STORAGES]
)
def test_the_folder_for_feeds_refuses_from_the_start_and_then_takes(
    struck: Fleet, tmp_path: Path, storage: str
) -> None:
    """Scrapy opens a feed at its first item, and tries again at the next: what came before must not be lost."""
    scheme, workers = STORAGES[storage]
    with site(240, latency=0.05) as child:
        run = Run(struck, child, tmp_path, properties=240, scheme=scheme, settings=SMALL, workers=SLOWLY | workers)
        run.items.refuse()
        run.begin()
        run.wait_for(lambda: served(child) > 24 or "rejected" in run.crawl.log)
        run.items.open()
        prove(run)


@LONG
@pytest.mark.parametrize("storage", STORAGES)
def test_the_folder_for_feeds_refuses_again_and_again(struck: Fleet, tmp_path: Path, storage: str) -> None:
    scheme, workers = STORAGES[storage]
    with site(480, latency=0.05) as child:
        run = Run(struck, child, tmp_path, properties=480, scheme=scheme, settings=SMALL, workers=SLOWLY | workers)
        run.begin()
        run.wait_for(lambda: served(child) > 20)
        for _ in range(3):
            for_a_while(run, run.items.refuse, run.items.open)
            settled = run.settled()
            run.wait_for(lambda settled=settled: run.settled() > settled or run.over)
        prove(run)


@pytest.mark.parametrize("scheme", [pytest.param("file", marks=LONG), "upload"])
def test_the_disk_of_the_workers_is_full_for_a_while(struck: Fleet, tmp_path: Path, scheme: str) -> None:
    """Also for their logs, and for the receipts that are larger."""
    with site(240, latency=0.05) as child:
        run = Run(struck, child, tmp_path, properties=240, scheme=scheme, settings=SMALL, workers=SLOWLY)
        run.begin()
        run.wait_for(lambda: served(child) > 60)
        full = [pid for pid in struck.workers() if limit_files(pid, FULL)]
        assert full
        before = served(child)
        run.wait_for(lambda: served(child) >= before + 60 or not struck.workers())
        for pid in full:
            limit_files(pid)
        prove(run)


FAULTS = (chaos.OPEN_REFUSED, chaos.DISK_FULL)


@LONG
@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_loses_some_items_to_its_disk_and_none_after_them(struck: Fleet, tmp_path: Path, fault: str) -> None:
    """Such a feed is stored without a word of Scrapy, and must not count."""
    with site(80, latency=0.05) as child:
        run = Run(struck, child, tmp_path, properties=80, scheme="upload", settings=SMALL, workers=SLOWLY)
        run.grant(fault)
        run.begin()
        prove(run)
    assert run.taken() == [fault]
    assert run.attempts() >= 3


@pytest.mark.parametrize("what", ["refuses", pytest.param("is-full", marks=LONG)])
def test_the_temporary_folder_for_uploads_by_ftp(struck: Fleet, tmp_path: Path, what: str) -> None:
    """A feed that goes to an FTP server is a file of its worker until the end."""
    with site(240, latency=0.05) as child, run_with_ftp(struck, child, tmp_path, 240) as (run, _):
        if what == "refuses":
            run.temp.refuse()
        run.begin()
        run.wait_for(lambda: served(child) > 24 or "rejected" in run.crawl.log)
        if what == "refuses":
            run.temp.open()
        else:
            full = [pid for pid in struck.workers() if limit_files(pid, FULL)]
            before = served(child)
            run.wait_for(lambda: served(child) >= before + 60 or not struck.workers())
            for pid in full:
                limit_files(pid)
        prove(run)


@pytest.mark.parametrize("what", ["is-gone", pytest.param("is-full", marks=LONG)])
def test_the_ftp_server(struck: Fleet, tmp_path: Path, what: str) -> None:
    """It is killed and comes back, or its disk is full until there is room again."""
    with site(240, latency=0.02) as child, run_with_ftp(struck, child, tmp_path, 240) as (run, server):
        if what == "is-full":
            limit_files(server.process.pid, FULL)
        run.begin()
        if what == "is-gone":
            run.wait_for(lambda: served(child) > 40)
            server.kill()
        run.wait_for(lambda: "rejected" in run.crawl.log)
        limit_files(server.process.pid) if what == "is-full" else server.restart()
        prove(run)


def test_a_folder_that_refuses_does_so_to_everybody(tmp_path: Path) -> None:
    """The fault itself: root is not stopped by permissions."""
    folder = Folder(tmp_path / "items")
    (folder.path / "before").touch()
    with (folder.path / "open").open("w") as file:
        folder.refuse()
        with pytest.raises(NotADirectoryError):
            (folder.path / "during").touch()
        with pytest.raises(FileExistsError):
            folder.path.mkdir(parents=True, exist_ok=True)
        file.write("goes on")
        file.flush()
        folder.open()
    assert sorted(path.name for path in folder.path.iterdir()) == ["before", "open"]
