"""What a run loses beside its balance, from real workers and the coordinator's own crawl to what the commands say."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crawling import EXAMPLE, Crawl, Project, SiteChild, wait_for


def said(project: Project, crawl: Crawl, *words: str) -> tuple[int | None, str]:
    """Exit code and output of ``scrapy batches``."""
    command = project.scrapy("batches", *words, "--ledger", str(crawl.ledger), folder=crawl.folder).wait()
    return command.process.returncode, command.log


@pytest.fixture(scope="module")
def lossy(project: Project, small_site: SiteChild, tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    """A batch a request, so that no dupe filter sees two of them."""
    folder = tmp_path_factory.mktemp("lossy")
    settings = {"DISTRIBUTED_BATCH_SIZE": 1}
    return project.crawl("lossy", folder=folder, args={"site": small_site.url}, settings=settings).wait()


def test_all_of_it_is_told_by_check(project: Project, lossy: Crawl) -> None:
    assert lossy.balance() == {"diverted": 6, "crawled": 6}
    code, shown = said(project, lossy, "check")
    assert code == 1
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[2] == "settled"
    begins = (
        "1 item missing in feeds that count, ",
        "failed in the coordinator's own crawl: ",
        "failed on workers beside their batches: ",
        "2 requests redirected to a page that was crawled for another request as well; ",
    )
    assert all(line.startswith(begin) for line, begin in zip(lines[3:], begins, strict=True))
    assert "3 (http 503: 2, callback ValueError: 1)" in lines[4]
    assert "1 (http 410: 1)" in lines[5]
    code, shown = said(project, lossy, "check", "--json")
    assert json.loads(shown)["runs"][0]["losses"] == {
        "unexported": 1, "followed": {"http 410": 1}, "own": {"http 503": 2, "callback ValueError": 1}, "twice": 2,
    }  # fmt: skip


def test_the_coordinator_says_it_at_the_end(lossy: Crawl) -> None:
    for line in (
        "1 item missing in feeds that count",
        "Failed in the coordinator's own crawl: 3 (http 503: 2, callback",
    ):
        assert line in lossy.log
    stats = ("items_unexported", "lost/own/http 503", "lost/followed/http 410", "landed_twice")
    assert [lossy.stat(f"distributed/{name}") for name in stats] == [1, 2, 1, 2]


def test_the_items_that_are_twice_are_those_that_were_said(lossy: Crawl) -> None:
    urls = [url.rpartition("/")[2] for url in lossy.item_urls()]
    assert urls == [f"property_{number:06d}.html" for number in (0, 0, 1, 2, 9, 9)]


def test_merge_does_not_pass_over_an_item_that_no_feed_has(project: Project, lossy: Crawl) -> None:
    output = lossy.folder / "merged.jl"
    code, shown = said(project, lossy, "merge", "-O", str(output))  # where its workers write is known
    assert code == 1
    assert "not exported: batch " in shown
    assert not output.exists()
    assert said(project, lossy, "merge", str(lossy.folder / "items"), "-O", str(output), "--partial")[0] == 1
    assert len(output.read_text().splitlines()) == 6


def test_a_page_that_leads_to_a_failure_may_fail_with_it(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    settings = {"DISTRIBUTED_FAILED_FOLLOW_UPS": "fail"}
    crawl = project.crawl("lossy", folder=tmp_path, args={"site": small_site.url}, settings=settings).wait()
    failed = [outcome for outcome in crawl.run()["outcomes"] if outcome["state"] == "failed"]
    assert [(one["reason"], one["url"][-20:]) for one in failed] == [("followed http 410", "property_000001.html")]
    assert not failed[0]["again"]


def test_two_runs_at_once_write_no_file_in_common(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    """The same feed URL, the same batch numbers, the same second."""
    items, crawls = tmp_path / "items", []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        settings = {"DISTRIBUTED_TARGET_FEED_URL": f"file://{items}/%(batch)s.jl", "DISTRIBUTED_BATCH_SIZE": 20}
        args: dict[str, Any] = {"site": small_site.url, "pages": 2}
        crawls.append(project.crawl("distr", folder=tmp_path / name, args=args, settings=settings))
    for crawl in crawls:
        crawl.wait()
        output = crawl.folder / "merged.jl"
        code, shown = said(project, crawl, "merge", str(items), "-O", str(output))
        assert code == 0, shown
        found = sorted(json.loads(line)["url"] for line in output.read_text().splitlines())
        assert found == small_site.property_urls(range(60))


def test_a_site_that_is_away_for_a_moment_costs_nothing(project: Project, tmp_path: Path) -> None:
    """All of the run hangs on its first page."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    crawl = project.crawl("distr", folder=tmp_path, args={"site": f"http://127.0.0.1:{port}", "pages": 1})
    wait_for(lambda: "failed (refused): it is tried again in 10 s" in crawl.log)
    command = [sys.executable, str(EXAMPLE / "site" / "site_server.py"), "--port", str(port), "--properties", "30"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            crawl.wait()
        finally:
            child.terminate()
    assert crawl.balance() == {"diverted": 30, "crawled": 30}
    assert crawl.stat("distributed/tried_again_here") == 1
    assert said(project, crawl, "check", "--strict")[0] == 0
