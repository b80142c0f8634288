"""No job of a run can start: that is known from the first jobs, and the same command goes on when it is mended."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from crawling import Crawl, Project, SiteChild
from scrapyd_child import start

NODES = ("node1", "node2")
SPIDERS = """
from pathlib import Path

from properties.spiders.distr import DistrSpider


class Towns:
    def open_spider(self, spider=None):
        if {broken}:
            self.file = Path(__file__).with_name("towns.csv").open()

    def process_item(self, item, spider=None):
        return item


class Narrow(DistrSpider):
    name = "narrow"

    def __init__(self, site, pages{options}):
        super().__init__(site=site, pages=pages{options})


class WithFile(DistrSpider):
    name = "file"
    custom_settings = {{**DistrSpider.custom_settings, "ITEM_PIPELINES": {{Towns: 1}}}}
"""
SAID = {
    "narrow": "(its __init__ must take **kwargs)",
    "file": "NotADirectoryError: [Errno 20] Not a directory: ",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("nodes")
        nodes = [stack.enter_context(start(folder, name=name)) for name in NODES]
        project = Project(tmp_path_factory.mktemp("project"), {node.name: f"url = {node.url}" for node in nodes})
        stack.callback(project.end)
        spiders = project.folder / "properties" / "spiders"
        (spiders / "towns.csv").write_text("Berlin\n")
        write(project, broken=True)
        yield project


def write(project: Project, *, broken: bool) -> None:
    text = SPIDERS.format(broken=broken, options="" if broken else ", **kwargs")
    (project.folder / "properties" / "spiders" / "new.py").write_text(text)


def deploy(project: Project, folder: Path) -> None:
    command = project.scrapy("fleet", "deploy", *NODES, folder=folder).wait()
    assert command.process.returncode == 0, command.log


def crawl(project: Project, spider: str, folder: Path, site: SiteChild, hosts: str) -> Crawl:
    settings = {"DISTRIBUTED_TARGET_HOSTS": hosts, "DISTRIBUTED_BATCH_SIZE": 10}
    return project.crawl(spider, folder=folder, args={"site": site.url, "pages": "2"}, settings=settings)


@pytest.mark.parametrize(("spider", "hosts"), [("narrow", "node*"), ("file", "node*"), ("narrow", "local:2")])
def test_the_crawl_closes_and_says_so_and_goes_on_when_that_is_mended(
    project: Project, small_site: SiteChild, tmp_path: Path, spider: str, hosts: str
) -> None:
    write(project, broken=True)
    if hosts != "local:2":
        deploy(project, tmp_path)
    for _ in range(2 if hosts == "local:2" else 1):  # to try once more uses up nothing
        began = time.monotonic()
        failed = crawl(project, spider, tmp_path, small_site, hosts).wait()
        assert time.monotonic() - began < 45  # DISTRIBUTED_FLEET_TIMEOUT is 300
        assert "Spider closed (no_job_starts)" in failed.log
        said = failed.log.partition("No job of this run can start: the first ")[2].splitlines()[0]
        assert SAID[spider] in said, failed.log
        assert all(node in said for node in (NODES if hosts != "local:2" else ["local"]))
        assert failed.process.returncode == 1
        balance = failed.run()["balance"]
        assert (balance.diverted, balance.queued, balance.dead, balance.holds) == (60, 60, 0, True)
        with closing(sqlite3.connect(failed.ledger)) as db:
            assert db.execute("SELECT count(*), sum(failures) FROM batch").fetchone() == (6, 0)
    write(project, broken=False)
    if hosts != "local:2":
        deploy(project, tmp_path)
    again = crawl(project, spider, tmp_path, small_site, hosts).wait()
    assert again.process.returncode == 0, again.log
    assert again.run()["name"] == failed.run()["name"]
    assert again.item_urls() == small_site.property_urls(range(60))
