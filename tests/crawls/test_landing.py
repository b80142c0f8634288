"""Items of a whole crawl travel by FTP, and the server is killed in the middle of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from crawling import Crawl, Project, site, wait_for
from ftp_child import FtpChild, ftp_server
from shifts import analyse

PROPERTIES = 180


def stopped_in_an_upload(server: FtpChild) -> bool:
    """Stop the server where a file of a worker is on its way, and others have landed."""
    server.send(signal.SIGSTOP)
    if server.staged() and server.landed():
        return True
    server.send(signal.SIGCONT)
    return False


def merge(project: Project, crawl: Crawl, items: Path) -> Crawl:
    """``scrapy batches merge`` into ``all.jl``."""
    words = ("batches", "merge", str(items), "-O", str(crawl.folder / "all.jl"), "--ledger", str(crawl.ledger))
    return project.scrapy(*words, folder=crawl.folder).wait()


def test_nothing_is_lost_or_counted_twice_when_the_server_is_killed(project: Project, tmp_path: Path) -> None:
    with site(PROPERTIES) as child, ftp_server(tmp_path) as server:
        settings = {
            "DISTRIBUTED_TARGET_HOSTS": "scrapyd1,scrapyd2",  # two waves of jobs: some have landed when others land
            "DISTRIBUTED_TARGET_FEED_URL": f"ftp://anonymous@127.0.0.1:{server.port}/%(batch)s_%(name)s_%(time)s.jl",
            "DISTRIBUTED_BATCH_SIZE": 30,
        }
        crawl = project.crawl("distr", folder=tmp_path, args={"site": child.url, "pages": 6}, settings=settings)
        wait_for(lambda: stopped_in_an_upload(server), 120)
        server.end(signal.SIGKILL)
        landed = {name: (server.items / name).read_bytes() for name in server.landed()}
        cut_off = [path for path in server.staged() if path.stat().st_nlink == 1]  # two: it has landed just now
        wait_for(lambda: "rejected: its feed was not stored" in crawl.log)
        server.restart()
        assert sorted(path.stem for path in server.staged("left")) == sorted(path.stem for path in cut_off)
        assert server.staged() == []
        crawl.wait()

    assert crawl.balance() == {"diverted": PROPERTIES, "crawled": PROPERTIES}
    assert project.check(crawl) == 0
    for name in server.landed():
        content = (server.items / name).read_bytes()
        assert content == landed.get(name, content)
        assert content.endswith(b"\n")
        assert all(json.loads(line)["url"] for line in content.splitlines())

    merged = merge(project, crawl, server.items)
    assert merged.process.returncode == 0, merged.log
    urls = [json.loads(line)["url"] for line in (tmp_path / "all.jl").read_text().splitlines()]
    assert sorted(urls) == child.property_urls(range(PROPERTIES))
    analysis = analyse(server.items)  # reads all that has landed, also what does not count for `merge`
    assert (analysis.items, analysis.malformed) == (PROPERTIES, 0)


def test_a_part_that_has_landed_all_the_same_is_not_merged_silently(project: Project, tmp_path: Path) -> None:
    """What no landing place can tell, the receipts do: here one item of a feed that counts is taken away. The feeds
    come by ``file://``."""
    settings = {
        "DISTRIBUTED_BATCH_SIZE": 30,
        "DISTRIBUTED_TARGET_FEED_URL": f"file://{tmp_path}/items/%(batch)s.jl",
        "DISTRIBUTED_WORKER_SETTINGS": json.dumps(
            {"FEED_STORAGES": {"file": "scrapy_distributed.results.whole_file.WholeFileStorage"}}
        ),
    }
    with site(60) as child:
        crawl = project.crawl("distr", folder=tmp_path, args={"site": child.url, "pages": 2}, settings=settings).wait()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.stat("distributed/workers/feedexport/success_count/WholeFileStorage") == 2
    feeds = sorted((tmp_path / "items").iterdir())
    assert [path.name.partition("-")[0] for path in feeds] == ["1", "2"]

    assert merge(project, crawl, tmp_path / "items").process.returncode == 0
    part = feeds[1]
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:-1]))
    merged = merge(project, crawl, tmp_path / "items")
    assert merged.process.returncode == 1
    assert "found 29 items, its receipt says 30" in merged.log
