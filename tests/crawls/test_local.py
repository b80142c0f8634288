"""Workers on this machine, started by the crawl itself, in an environment without Scrapyd."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crawling import FAKES, Crawl, Project, wait_for
from homing import Home, complaints, items
from late_imports import late_imports, told_in
from shop import PRODUCTS, Shop

WITHOUT_SCRAPYD = {"PYTHONPATH": str(FAKES / "no_scrapyd")}
LOCAL = {"DISTRIBUTED_TARGET_HOSTS": "local:2", "DISTRIBUTED_BATCH_SIZE": 2}
SLOW = {"DOWNLOAD_DELAY": 0.5, "CONCURRENT_REQUESTS_PER_DOMAIN": 1, "RANDOMIZE_DOWNLOAD_DELAY": False}


class LocalProject(Project):
    def scrapy(self, *args: str, folder: Path, **given: Any) -> Crawl:
        return super().scrapy(*args, folder=folder, **given, **WITHOUT_SCRAPYD)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProject]:
    project = LocalProject(tmp_path_factory.mktemp("local"), {}, settings="trial.home_settings", name="home")
    yield project
    project.end()


@pytest.fixture
def here(project: LocalProject, own_shop: Shop) -> Home:
    return Home(project, own_shop)


def start(here: Home, folder: Path, spider: str = "plain_dict", *options: str, **settings: Any) -> Crawl:
    output = ("-O", str(folder / "out.jl"))
    return here.crawl(spider, *output, *options, folder=folder, settings={**LOCAL, **settings})


def products(folder: Path) -> Counter[str]:
    return Counter(str(item["number"]) for item in items(folder / "out.jl"))


EACH_ONCE = Counter(str(number) for number in range(PRODUCTS))


def processes(folder: Path) -> list[int]:
    """The pids of those that write to a log in *folder*: workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(folder) in os.readlink(entry / "fd" / "1") and ".local/" in os.readlink(entry / "fd" / "1"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def kept(crawl: Crawl) -> list[str]:
    """What workers have left beside their logs."""
    return [path.name for path in crawl.ledger.with_name(f"{crawl.ledger.name}.local").glob("*.receipts/*")]


def test_a_job_imports_nothing_but_its_project(here: Home, tmp_path: Path) -> None:
    """It would do so for each batch."""
    crawl = start(here, tmp_path, "imports", DISTRIBUTED_BATCH_SIZE=PRODUCTS).wait()
    (log,) = crawl.ledger.with_name(f"{crawl.ledger.name}.local").glob("logs/*.log")
    assert late_imports(told_in(log.read_text())) == {"twisted.internet.reactor"}


def test_what_a_worker_has_left_that_outlived_its_run_is_removed_with_the_next(here: Home, tmp_path: Path) -> None:
    first = start(here, tmp_path).wait()
    left = (
        first.ledger.with_name(f"{first.ledger.name}.local")
        / "logs.receipts"
        / f"{first.run()['name']}-000001-9-a.json"
    )
    left.touch()
    assert start(here, tmp_path).wait().process.returncode == 0
    assert not left.exists()


def test_all_items_come_home_and_no_process_is_left(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path).wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == EACH_ONCE
    assert complaints(crawl) == []
    assert "on 2 workers on this machine" in crawl.log
    assert crawl.stat("distributed/attempts/local") == PRODUCTS / 2
    assert processes(tmp_path) == []
    assert kept(crawl) == []
    assert here.shop.visits["/p/0"] == 1


def test_a_site_is_asked_no_faster_by_small_jobs(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path, DISTRIBUTED_BATCH_SIZE=1, **SLOW).wait()
    assert products(tmp_path) == EACH_ONCE
    assert crawl.stat("distributed/attempts/local") == PRODUCTS
    times = here.shop.times
    each_delay = [later - earlier for earlier, later in zip(times, times[2:], strict=False)]  # of two slots
    assert min(each_delay) > 0.9 * SLOW["DOWNLOAD_DELAY"]
    assert times[1] - times[0] < 0.9 * SLOW["DOWNLOAD_DELAY"]  # there is no job before the first of a slot


def test_ctrl_c_brings_home_what_is_done(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path, DISTRIBUTED_BATCH_SIZE=4, **SLOW)
    wait_for(lambda: sum(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) >= 3)
    os.kill(crawl.process.pid, signal.SIGINT)
    crawl.wait()
    assert "told to end, and waited for" in crawl.log
    assert processes(tmp_path) == []
    before = products(tmp_path)
    assert 0 < before.total() < PRODUCTS
    assert set(before.values()) == {1}
    again = start(here, tmp_path).wait()
    assert again.process.returncode == 0, again.log
    assert products(tmp_path) == EACH_ONCE
    assert max(here.shop.visits.values()) == 1, "a page was crawled twice"


def test_when_the_crawl_is_killed_its_workers_end_and_the_next_one_takes_over(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path, DISTRIBUTED_BATCH_SIZE=6, **SLOW)
    wait_for(lambda: sum(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) >= 4)
    os.kill(crawl.process.pid, signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: not processes(tmp_path))
    assert time.monotonic() - began < 10
    again = start(here, tmp_path).wait()
    assert again.process.returncode == 0, again.log
    assert products(tmp_path) == EACH_ONCE
    assert sum(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) < 2 * PRODUCTS
    assert "accepted (shutdown)" in again.log
    assert kept(again) == []


def test_the_second_ctrl_c_does_not_wait(here: Home, tmp_path: Path) -> None:
    here.shop.hold("/p/")
    crawl = start(here, tmp_path)
    try:
        wait_for(lambda: here.shop.visits["/p/0"])
        os.kill(crawl.process.pid, signal.SIGINT)
        wait_for(lambda: "told to end, and waited for" in crawl.log)
        os.kill(crawl.process.pid, signal.SIGINT)
        crawl.wait(20)
    finally:
        here.shop.release()
    wait_for(lambda: not processes(tmp_path), 15)
    again = start(here, tmp_path).wait()
    assert again.process.returncode == 0, again.log
    assert products(tmp_path) == EACH_ONCE
    assert kept(again) == []


def test_a_traceback_of_a_worker_is_shown(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path, "raising").wait()
    shown = re.findall(r"the first of its kind in a worker on this machine", crawl.log)
    assert len(shown) == 3  # before an item, after one, and in the page after
    assert "Traceback (most recent call last):" in crawl.log


def test_what_a_killed_worker_had_goes_out_again(here: Home, tmp_path: Path) -> None:
    crawl = start(here, tmp_path, "killed", "-a", f"mark={tmp_path / 'mark'}").wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == EACH_ONCE
    assert "rejected: no receipt" in crawl.log
    assert kept(crawl) == []


# Other ways to start it

ONE_FILE = """\
import scrapy

class Products(scrapy.Spider):
    name = "products"
    custom_settings = {
        "ADDONS": {"scrapy_distributed.Addon": 500},
        "DISTRIBUTED_TARGET_HOSTS": ["local:2"],
        "DISTRIBUTED_TARGET_CALLBACKS": ["parse_product"],
        "DISTRIBUTED_BATCH_SIZE": 3,
    }

    async def start(self):
        for number in range(12):
            yield scrapy.Request(f"{self.site}/p/{number}", self.parse_product)

    def parse_product(self, response):
        yield {"number": response.url.rpartition("/")[2], "mark": self.settings.get("MARK")}
"""
SCRIPT = """\
import sys
from scrapy.crawler import CrawlerProcess
from products_of_a_script import Products

process = CrawlerProcess({"LOG_LEVEL": "INFO", "MARK": "given", "FEEDS": {sys.argv[2]: {"format": "jl"}}})
process.crawl(Products, site=sys.argv[1])
process.start()
"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(folder), **WITHOUT_SCRAPYD}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_spider_in_a_file_without_a_project(own_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "products.py").write_text(ONE_FILE)
    given = ("-a", f"site={own_shop.url}", "-s", "MARK=m", "-O", "out.jl")
    done = run(tmp_path, "-m", "scrapy", "runspider", "products.py", *given)
    assert done.returncode == 0, done.stderr
    assert products(tmp_path) == EACH_ONCE
    assert {item["mark"] for item in items(tmp_path / "out.jl")} == {"m"}


def test_a_script_whose_spider_is_in_a_file_of_its_own(own_shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "products_of_a_script.py").write_text(ONE_FILE)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run(tmp_path, "script.py", own_shop.url, "out.jl")
    assert products(tmp_path) == EACH_ONCE, done.stderr
    assert {item["mark"] for item in items(tmp_path / "out.jl")} == {"given"}


def test_one_that_a_script_has_in_itself_is_refused(own_shop: Shop, tmp_path: Path) -> None:
    script = SCRIPT.replace("from products_of_a_script import Products\n", ONE_FILE)
    (tmp_path / "script.py").write_text(script)
    done = run(tmp_path, "script.py", own_shop.url, "out.jl")
    assert "the spider __main__.Products, which they would not find" in done.stderr
    assert not own_shop.visits


def test_two_crawls_in_one_process(project: Project, own_shop: Shop, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from scrapy.crawler import CrawlerProcess
            from scrapy.utils.project import get_project_settings

            site, folder = sys.argv[1:]
            process = CrawlerProcess(get_project_settings())
            for spider in ("plain_dict", "chain"):
                crawler = process.create_crawler(spider)
                crawler.settings.set("DISTRIBUTED_TARGET_HOSTS", ["local:1"], priority="cmdline")
                crawler.settings.set("DISTRIBUTED_LEDGER", f"{folder}/{spider}.sqlite", priority="cmdline")
                crawler.settings.set("FEEDS", {f"{folder}/{spider}.jl": {"format": "jl"}}, priority="cmdline")
                process.crawl(crawler, site=site)
            process.start()
        """)
    )
    crawl = project.scrapy(own_shop.url, str(tmp_path), folder=tmp_path, program=(str(script),)).wait()
    assert crawl.process.returncode == 0, crawl.log
    assert len(items(tmp_path / "plain_dict.jl")) == len(items(tmp_path / "chain.jl")) == PRODUCTS, crawl.log
