"""``scrapy fleet deploy`` and nodes that fail at it: what they can't use is taken back everywhere."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from fake_scrapyd import ApiError, FakeScrapyd, Fault
from tiny_project import tiny_egg
from twisted.internet.defer import Deferred

from scrapy_distributed.fleet.deploy import Deployed, deploy
from scrapy_distributed.fleet.node import Node, NodeAddress


class Broken(FakeScrapyd):
    """Stores an egg, and can't import it, as Scrapyd does."""

    def _addversion(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        super()._addversion(raw)
        raise ApiError(
            "RunnerError: Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'x'"
        )


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    """The second one can't import anything."""
    fakes = [kind(projects={"tiny": {"1": ["quick"]}}).listen() for kind in (FakeScrapyd, Broken, FakeScrapyd)]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_egg(tmp_path_factory.mktemp("egg") / "project")


async def deployed(fakes: list[FakeScrapyd], egg: bytes, version: str = "2") -> list[Deployed]:
    nodes = [
        Node(address=NodeAddress(name=f"n{number}", url=fake.url), deadline_seconds=10)
        for number, fake in enumerate(fakes)
    ]
    results = await deploy(nodes, "tiny", version, egg)
    for node in nodes:
        await node.close()
    return results


def versions(fakes: list[FakeScrapyd]) -> list[list[str]]:
    return [sorted(fake.projects.get("tiny", {})) for fake in fakes]


@pytest_twisted.ensureDeferred
async def test_a_version_that_one_node_can_not_use_is_taken_back_everywhere(
    fakes: list[FakeScrapyd], egg: bytes
) -> None:
    results = await deployed(fakes, egg)
    assert versions(fakes) == [["1"]] * 3
    one, two, three = (result.problem or "" for result in results)
    assert one == three == "n1 can't use it: version 2 was taken back"
    assert two.startswith("ModuleNotFoundError: No module named 'x'")
    assert two.endswith(": version 2 was taken back")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "fault", [Fault.SERVER_ERROR, Fault.DROP, Fault.UNAUTHORIZED, Fault.TOO_LARGE, Fault.NOT_FOUND]
)
async def test_a_node_that_does_not_take_it_says_nothing_about_the_egg(
    fakes: list[FakeScrapyd], egg: bytes, fault: Fault
) -> None:
    fakes[1].faults["addversion.json"] = fault
    results = await deployed(fakes, egg)
    assert versions(fakes) == [["1", "2"], ["1"], ["1", "2"]]
    assert [result.problem is None for result in results] == [True, False, True]
    assert "taken back" not in str(results[1].problem)


@pytest_twisted.ensureDeferred
async def test_a_version_that_was_there_before_is_not_deleted(fakes: list[FakeScrapyd], egg: bytes) -> None:
    results = await deployed(fakes, egg, version="1")
    assert versions(fakes) == [["1"], ["1"], ["1"]]
    words = (
        ": version 1 was there before: it stays, with this egg: deploy one that works, best as another version, or"
        " delete it"
    )
    assert [str(result.problem).endswith(words) for result in results] == [True] * 3
    assert results[0].problem == f"n1 can't use it{words}"


@pytest_twisted.ensureDeferred
async def test_only_what_this_deploy_has_added_is_deleted(fakes: list[FakeScrapyd], egg: bytes) -> None:
    fakes[0].projects["tiny"]["2"] = ["quick"]
    results = await deployed(fakes, egg)
    assert versions(fakes) == [["1", "2"], ["1"], ["1"]]
    assert "it stays" in str(results[0].problem)
    assert results[2].problem == "n1 can't use it: version 2 was taken back"


@pytest_twisted.ensureDeferred
async def test_a_version_that_can_not_be_taken_back_is_named_with_its_node(
    fakes: list[FakeScrapyd], egg: bytes
) -> None:
    fakes[0].faults["delversion.json"] = Fault.SERVER_ERROR
    results = await deployed(fakes, egg)
    assert versions(fakes) == [["1", "2"], ["1"], ["1"]]
    assert "n1 can't use it: version 2 could not be taken back (delversion.json answered HTTP 500" in str(
        results[0].problem
    )
    assert "it may stay there as the newest" in str(results[0].problem)


@pytest_twisted.ensureDeferred
async def test_an_egg_without_spiders_and_a_version_that_is_not_listed(fakes: list[FakeScrapyd], egg: bytes) -> None:
    class Forgetful(FakeScrapyd):
        def _listversions(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
            return {"versions": ["1", "\x1b]0;title\x07", "a\nb", "\u202e", "x" * 10**6]}

    forgetful = Forgetful(projects={"tiny": {"1": ["quick"]}}).listen()
    try:
        (result,) = await deployed([forgetful], egg)
    finally:
        await forgetful.close()
    assert result.problem == "version 2 was taken and is not listed (found: 1): version 2 is not there"
    empty = tiny_egg_without_spiders(egg)
    (result,) = await deployed(fakes[:1], empty)
    assert result.problem == "the egg has no spiders: check SPIDER_MODULES of the project: version 2 was taken back"
    assert versions(fakes)[0] == ["1"]


def tiny_egg_without_spiders(egg: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(egg)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if not name.endswith("spiders.py"):
                new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest_twisted.ensureDeferred
async def test_a_version_that_is_not_the_newest_by_its_name_is_told(fakes: list[FakeScrapyd], egg: bytes) -> None:
    fakes[0].projects["tiny"]["9"] = ["quick"]
    (one,) = await deployed(fakes[:1], egg, version="5f2a")
    assert (one.problem, one.newest) == (None, "9")
    (one,) = await deployed(fakes[:1], egg, version="10")
    assert (one.problem, one.newest) == (None, "")
