"""Coordinators that a Scrapyd runs as its jobs, as cron or a timer of ScrapydWeb has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from crawling import Project, SiteChild, call, wait_for
from scrapyd_child import ScrapydChild, start

from scrapy_distributed.ledger.reader import LedgerReader

PROJECT = "live"  # other than the project's own name


@pytest.fixture(scope="module", params=[False, True], ids=["stock", "warm"])
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ScrapydChild]]:
    """Two, and no scrapy.cfg is where they run."""
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        nodes = [stack.enter_context(start(folder, name=name, warm=request.param)) for name in ("node1", "node2")]
        project = Project(
            tmp_path_factory.mktemp("project"), {node.name: f"url = {node.url}" for node in nodes}, name=PROJECT
        )
        stack.callback(project.end)
        project.deploy("node*", folder=tmp_path_factory.mktemp("deploy"))
        for node in nodes:
            (node.dir / "scrapy.cfg").unlink(missing_ok=True)
        yield nodes


def log_of(node: ScrapydChild, job: str, hosts: str, site: SiteChild) -> str:
    """That of a job that ``curl`` has asked for, once it is over."""
    settings = [f"DISTRIBUTED_TARGET_HOSTS={hosts}", "DISTRIBUTED_BATCH_SIZE=15", "DISTRIBUTED_FLEET_TIMEOUT=1"]
    settings.append("DISTRIBUTED_TARGET_FEED_URL=")
    form = [("project", PROJECT), ("spider", "distr"), ("jobid", job), ("site", site.url), ("pages", "2")]
    form += [("setting", setting) for setting in settings]
    form += [("setting", f"FEEDS={json.dumps({f'{job}.jl': {'format': 'jsonlines'}})}")]
    with urlopen(f"{node.url}/schedule.json", data=urlencode(form).encode(), timeout=60) as answer:
        assert json.load(answer)["status"] == "ok"
    wait_for(lambda: call(f"{node.url}/status.json?job={job}")["currstate"] == "finished", 90)
    with urlopen(f"{node.url}/logs/{PROJECT}/distr/{job}.log") as answer:
        return str(answer.read().decode())


def test_it_is_a_coordinator_there(nodes: list[ScrapydChild], small_site: SiteChild) -> None:
    hosts = ",".join(node.url.removeprefix("http://") for node in nodes)
    log = log_of(nodes[0], "cron-1", hosts, small_site)
    assert f" of project {PROJECT} on 2 nodes, egg version r1" in log
    assert "Spider closed (finished)" in log
    reader = LedgerReader(nodes[0].dir / ".scrapy" / "distributed" / "distr.sqlite")
    try:
        run = reader.runs()[-1]
        balance, batches = reader.balance(run.id), reader.batches(run.id)
    finally:
        reader.close()
    assert (balance.diverted, balance.crawled, run.ended is not None) == (60, 60, True)
    assert {batch.node for batch in batches} == set(hosts.split(","))
    items = (nodes[0].dir / "cron-1.jl").read_text().splitlines()
    assert sorted(json.loads(item)["url"] for item in items) == small_site.property_urls(range(60))


def test_what_it_lacks_is_named(nodes: list[ScrapydChild], small_site: SiteChild) -> None:
    words = "this crawl is a job of a Scrapyd, and the egg of a project has no scrapy.cfg"
    for number, hosts in enumerate(("node*", "nowhere-at-all")):
        log = log_of(nodes[0], f"cron-name-{number}", hosts, small_site)
        assert "The crawl does not start: " in log
        assert words in log.partition("The crawl does not start: ")[2]
        assert "downloader/request_count" not in log


def test_workers_on_the_machine_of_its_scrapyd(nodes: list[ScrapydChild], small_site: SiteChild) -> None:
    log = log_of(nodes[0], "cron-local", "local:2", small_site)
    assert f" of project {PROJECT} on 2 workers on this machine" in log
    items = Path(nodes[0].dir / "cron-local.jl").read_text().splitlines()
    assert sorted(json.loads(item)["url"] for item in items) == small_site.property_urls(range(60))
