"""A spider that logs in on the coordinator is logged in on the workers: the files are those of a local crawl."""

from __future__ import annotations

from pathlib import Path

import pytest
from crawling import Project, wait_for
from homing import PATIENCE, Case, Compared, Home, complaints, content, items
from members import GUEST, ON_A_PAGE, ORDERS
from shop import Shop

CASES = {name: Case(name) for name in ("members", "two_members", "members_chain")}
SUFFIXES = "[tldextract]"  # Scrapy asks for the list of public suffixes, and goes on without it


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    crawl = compared.crawl(name)
    assert fleet == local, crawl.log
    assert [said for said in complaints(crawl) if SUFFIXES not in said] == []
    said = [item["said"] for item in items(crawl.folder / "out.jl")]
    assert said.count(GUEST) == (2 * ORDERS if name == "two_members" else 0)
    assert said.count("Order 3 of ann") == 2


def test_what_was_queued_when_the_coordinator_was_killed(home_project: Project, own_shop: Shop, tmp_path: Path) -> None:
    """The same command sends it before it has logged in again, and the rest afterwards."""
    home, folder = Home(home_project, own_shop), tmp_path / "fleet"
    output = ("-O", str(folder / "out.jl"))
    own_shop.hold("/members/orders/1")
    first = home.crawl("members", *output, folder=folder, settings={"DISTRIBUTED_BATCH_SIZE": 100})
    wait_for(lambda: own_shop.visits["/members/orders/1"] and first.run()["balance"].queued == ON_A_PAGE, 60)
    assert first.run()["batches"] == []
    first.end()
    own_shop.hold("/members/orders/0")
    again = home.crawl("members", *output, folder=folder)
    wait_for(lambda: own_shop.visits[f"/members/order/{ON_A_PAGE - 1}"], 60)
    own_shop.release()
    again.wait()
    home.locally({"members": Case("members")}, tmp_path).wait(PATIENCE)
    assert content(folder / "out.jl") == content(tmp_path / "members" / "out.jl"), again.log
    assert again.balance() == {"diverted": ORDERS, "crawled": ORDERS, "duplicates": ON_A_PAGE}
    show = home.project.scrapy("batches", "show", "1", "--ledger", str(again.ledger), folder=folder).wait()
    assert "ann-" not in first.log + again.log + show.log
