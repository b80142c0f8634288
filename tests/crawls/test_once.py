"""What a spider asks for by itself, and not by a page, is crawled once, and not once a job."""

from __future__ import annotations

import pytest
from homing import Case, Compared, complaints

HOSTS = "local:2"
CASES = {
    name: Case(name, ["jl"], {"DISTRIBUTED_BATCH_SIZE": 3})
    for name in ("idle_targets", "idle_late", "idle_pages", "opened", "waits", "engine", "engine_targets", "starts")
}


@pytest.mark.parametrize("name", CASES)
def test_the_items_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    assert len(local["out.jl"]) > 5
    assert fleet == local, compared.crawl(name).log
    assert compared.crawl(name).balance()["diverted"] > 0
    assert compared.crawl(name).process.returncode == 0


@pytest.mark.parametrize(("name", "times"), [("idle_targets", 4), ("idle_pages", 1), ("opened", 2)])
def test_what_is_refused_in_a_job_is_counted(compared: Compared, name: str, times: int) -> None:
    crawl = compared.crawl(name)
    jobs = crawl.stat("distributed/attempts")
    assert crawl.stat("distributed/workers/distributed/refused_requests") >= times * jobs > 0
    assert len(complaints(crawl)) == (name == "idle_targets")  # one of its pages is not there
