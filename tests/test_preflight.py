"""Before the first batch: the version that all nodes have, and which of them can be used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd, Fault
from twisted.internet.defer import Deferred

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.node import Node, NodeAddress
from scrapy_distributed.preflight import choose_version, preflight


@pytest.mark.parametrize(
    ("versions", "asked", "expected"),
    [
        ([["r9", "r10"], ["r10", "r9"]], "", "r10"),
        ([["9_0", "10_0", "9_1"], ["9_0", "10_0"]], "", "10_0"),
        ([["r9", "r10"], ["r9"]], "", "r9"),
        ([["1714550400", "999"]], "", "1714550400"),
        ([["r9", "r10"], ["r9", "r10"]], "r9", "r9"),
        ([["1_0", "2_0"]], "1.0", "1_0"),
        ([["a_b-c"]], "a b-c", "a_b-c"),
        ([["a", "1"]], "", "1"),
        ([["r1", "r1-fix"]], "", "r1-fix"),
        ([["1_2_3", "1_2"], ["1_2", "1_2_3"]], "", "1_2_3"),
        ([[], []], "", ""),
        ([[], []], "r9", ""),
    ],
)
def test_the_newest_version_that_all_have(versions: list[list[str]], asked: str, expected: str) -> None:
    nodes = {f"n{number}": found for number, found in enumerate(versions)}
    assert choose_version(nodes, asked=asked, project="p") == expected
    assert choose_version(dict(reversed(nodes.items())), asked=asked, project="p") == expected


@pytest.mark.parametrize(
    ("versions", "asked", "words"),
    [
        ([["r1"], ["r2"]], "", ["one version on every node", "n0 has r1", "n1 has r2"]),
        ([["r1"], []], "", ["one version on every node", "n0 has r1", "n1 has none"]),
        ([["r1"], ["r1"]], "r.2", ["version 'r_2'", "n0 has r1"]),
        ([["r1", "r2"], ["r1"]], "r2", ["version 'r2'", "n0 has r1, r2; n1 has r1"]),
    ],
)
def test_no_common_version_is_refused_with_what_each_has(
    versions: list[list[str]], asked: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_version({f"n{n}": found for n, found in enumerate(versions)}, asked=asked, project="p")
    for word in (*words, "project 'p'", "scrapy fleet deploy"):
        assert word in str(caught.value)


# Asked of nodes


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    fakes = [FakeScrapyd(projects={"p": {"r9": ["s"], "r10": ["s", "t"]}}).listen() for _ in range(3)]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


async def looked(fakes: list[FakeScrapyd], spider: str = "s", version: str = "") -> tuple[str, dict[str, str]]:
    """Version and faults by number of the node."""
    nodes = [
        Node(address=NodeAddress(name=f"n{number}", url=fake.url), deadline_seconds=0.5)
        for number, fake in enumerate(fakes)
    ]
    try:
        found, faults = await preflight(nodes, project="p", spider=spider, version=version)
        return found, {name: str(fault) for name, fault in faults.items()}
    finally:
        for node in nodes:
            await node.close()


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_is_fine(fakes: list[FakeScrapyd]) -> None:
    assert await looked(fakes) == ("r10", {})
    assert await looked(fakes, version="r9") == ("r9", {})


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.HTML, Fault.HANG, Fault.DROP])
async def test_a_node_that_fails_is_named_and_the_others_are_used(fakes: list[FakeScrapyd], fault: Fault) -> None:
    fakes[1].faults["*"] = fault
    fakes[1].projects = {}
    version, faults = await looked(fakes)
    assert version == "r10"
    assert list(faults) == ["n1"]
    assert faults["n1"].startswith("n1: ")


@pytest_twisted.ensureDeferred
async def test_a_fault_at_the_later_question_counts(fakes: list[FakeScrapyd]) -> None:
    fakes[2].faults["listspiders.json"] = Fault.SERVER_ERROR
    version, faults = await looked(fakes)
    assert (version, list(faults)) == ("r10", ["n2"])


@pytest_twisted.ensureDeferred
async def test_a_node_without_the_spider_is_named_with_what_it_has(fakes: list[FakeScrapyd]) -> None:
    fakes[0].projects["p"]["r10"] = ["other", "another"]
    version, faults = await looked(fakes)
    assert (version, list(faults)) == ("r10", ["n0"])
    assert "spider 's' is not in project 'p' there (it has another, other): scrapy fleet deploy" in faults["n0"]


@pytest_twisted.ensureDeferred
async def test_a_fleet_of_which_no_node_can_be_used_is_refused_with_all_reasons(fakes: list[FakeScrapyd]) -> None:
    for fake in fakes:
        fake.faults["daemonstatus.json"] = Fault.SERVER_ERROR
    with pytest.raises(ConfigError, match="DISTRIBUTED_TARGET_HOSTS: none of the 3 nodes can be used") as caught:
        await looked(fakes)
    assert all(f"n{number}: " in str(caught.value) for number in range(3))


@pytest_twisted.ensureDeferred
async def test_a_spider_that_no_node_has_is_refused(fakes: list[FakeScrapyd]) -> None:
    with pytest.raises(ConfigError, match="spider 'x' is not in project 'p'"):
        await looked(fakes, spider="x")


@pytest_twisted.ensureDeferred
async def test_a_version_that_is_not_everywhere_is_refused(fakes: list[FakeScrapyd]) -> None:
    del fakes[1].projects["p"]["r10"]
    assert await looked(fakes) == ("r9", {})
    with pytest.raises(ConfigError, match="version 'r10'"):
        await looked(fakes, version="r10")


@pytest_twisted.ensureDeferred
async def test_a_project_that_is_nowhere_is_refused(fakes: list[FakeScrapyd]) -> None:
    for fake in fakes:
        fake.projects = {}
    with pytest.raises(ConfigError, match="project 'p' not found"):
        await looked(fakes)
