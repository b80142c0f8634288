"""What requests hold arrives as it left, so a crawl of the fleet gives the items of a local one."""

from __future__ import annotations

import pytest
from homing import Case, Compared, complaints

CASES = {
    name: Case(name, ["jl"], {"DISTRIBUTED_BATCH_SIZE": 4})
    for name in ("meta_item", "typed", "other_names", "found_values")
}


@pytest.mark.parametrize("name", CASES)
def test_the_items_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    crawl = compared.crawl(name)
    assert len(local["out.jl"]) > 5
    assert fleet == local, crawl.log
    assert ["share an object" in line for line in complaints(crawl)] == [True] * (name == "typed")
    assert crawl.stat("distributed/local/not_serializable") is None
    assert crawl.process.returncode == 0


def test_a_worker_crawls_what_it_may_not_report(compared: Compared) -> None:
    crawl = compared.crawl("found_values")
    assert crawl.stat("distributed/found_by_workers") > 0
    assert crawl.stat("distributed/workers/distributed/local/not_serializable") > 0
