"""What every node is asked: the version that all have, which of them can be used, and what is wrong with the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd, Fault
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from until import until

from scrapy_distributed.errors import ConfigError, FleetUnusableError
from scrapy_distributed.fleet import preflight as preflight_module
from scrapy_distributed.fleet import roll_call
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.fleet.preflight import CHECKS, OPEN, Survey, Verdict, preflight

# Asked of nodes


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    fakes = [FakeScrapyd(projects={"p": {"r9": ["s"], "r10": ["s", "t"]}}).listen() for _ in range(3)]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


def nodes_of(fakes: list[FakeScrapyd], deadline: float = 5) -> list[Node]:
    return [
        Node(address=NodeAddress(name=f"n{number}", url=fake.url), deadline_seconds=deadline)
        for number, fake in enumerate(fakes)
    ]


async def looked(
    fakes: list[FakeScrapyd],
    *,
    spider: str = "s",
    version: str = "",
    feed: bool = True,
    wait: float = 0.0,
    deadline: float = 5.0,
) -> tuple[str, dict[str, str]]:
    """Version and faults by number of the node."""
    nodes = nodes_of(fakes, deadline)
    known = {"project": "p", "spider": spider, "version": version, "feed": feed}
    try:
        found, faults = await preflight(nodes, clock=reactor, wait=wait, **known)
        return found, {name: str(fault) for name, fault in faults.items()}
    finally:
        for node in nodes:
            await node.close()


async def surveyed(fakes: list[FakeScrapyd], version: str = "") -> list[tuple[str, str, Verdict, str]]:
    """Node, check, verdict and words of all that was found."""
    nodes, survey = nodes_of(fakes), Survey(project="p", spider="s", version=version)
    await survey.ask(nodes, CHECKS)
    for node in nodes:
        await node.close()
    return [(one.node, one.check, one.verdict, one.words) for one in survey.findings]


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_is_fine(fakes: list[FakeScrapyd]) -> None:
    assert await looked(fakes) == ("r10", {})
    assert await looked(fakes, version="r9") == ("r9", {})


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.UNAUTHORIZED, Fault.HTML, Fault.HANG, Fault.DROP])
async def test_a_node_that_fails_is_named_and_the_others_are_used(fakes: list[FakeScrapyd], fault: Fault) -> None:
    fakes[1].faults["*"] = fault
    fakes[1].projects = {}
    version, faults = await looked(fakes, deadline=1 if fault is Fault.HANG else 5)
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
async def test_a_spider_of_a_newer_version_is_not_said_to_be_missing_in_the_project(fakes: list[FakeScrapyd]) -> None:
    for fake in fakes[:2]:
        fake.projects["p"]["r11"] = ["s", "new"]
    for version, why in (("", "the newest that every node has"), ("r10", "the one asked for")):
        with pytest.raises(ConfigError) as caught:
            await looked(fakes, spider="new", version=version)
        told = str(caught.value).splitlines()[1:]
        place = f"version r10 of project 'p' there, {why} (it has s, t): scrapy fleet deploy"
        assert [f"spider 'new' is not in {place}" in line for line in told] == [True, True, False]
        assert "is not in project 'p' there (it has s, t)" in told[2]


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


@pytest_twisted.ensureDeferred
async def test_a_project_that_is_not_on_one_node_leaves_that_node_out(fakes: list[FakeScrapyd]) -> None:
    fakes[1].projects = {"q": {"r1": ["s"]}}
    version, faults = await looked(fakes)
    assert (version, list(faults)) == ("r10", ["n1"])
    assert faults["n1"] == "n1: project 'p' not found: deploy it: scrapy fleet deploy (it has q)"


@pytest_twisted.ensureDeferred
async def test_what_a_node_lists_is_quoted_with_care(fakes: list[FakeScrapyd]) -> None:
    names = ["\x1b[2J", *(f"name{number}" for number in range(1000))]
    fakes[1].projects = {name: {"r1": ["s"]} for name in names}
    fakes[2].projects["p"]["r10"] = names
    _, faults = await looked(fakes)
    assert faults["n1"].startswith("n1: project 'p' not found: deploy it: scrapy fleet deploy (it has ?[2J, name0, ")
    assert "there (it has ?[2J, name0, " in faults["n2"]
    assert all(fault.isprintable() and len(fault) < 450 for fault in faults.values())


class Forged(FakeScrapyd):
    """Lists besides its versions what a terminal carries out, what makes lines of a log, and what floods it."""

    def _listversions(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        evil = ["\x1b]0;title\x07", "r99\n2026 ERROR: x", "\u202er99", "9" * 10**6, "", "r99 ", "../r99", "r99.egg"]
        return {"versions": [*evil, *super()._listversions(raw)["versions"]]}


@pytest_twisted.ensureDeferred
async def test_a_version_that_no_scrapyd_stores_is_none(fakes: list[FakeScrapyd]) -> None:
    forged = Forged(projects={"p": {"r10": ["s"]}}).listen()
    try:
        assert await looked([fakes[0], forged]) == ("r10", {})
        assert await looked([forged]) == ("r10", {})
        with pytest.raises(ConfigError) as caught:
            await looked([forged], version="r11")
    finally:
        await forged.close()
    assert str(caught.value) == "project 'p': expected version 'r11', n0 has r10: scrapy fleet deploy"


@pytest_twisted.ensureDeferred
async def test_a_node_from_which_no_receipt_comes_home_is_left_out(fakes: list[FakeScrapyd]) -> None:
    fakes[1].logs_dir = False
    _, faults = await looked(fakes)
    assert list(faults) == ["n1"]
    assert "n1: /logs/ is not served" in faults["n1"]
    assert "set logs_dir = logs in its scrapyd.conf" in faults["n1"]


@pytest_twisted.ensureDeferred
async def test_items_dir_counts_where_a_feed_is_asked_for(fakes: list[FakeScrapyd]) -> None:
    fakes[1].items_dir = True
    _, faults = await looked(fakes)
    assert list(faults) == ["n1"]
    assert "make items_dir empty in its scrapyd.conf" in faults["n1"]
    assert await looked(fakes, feed=False) == ("r10", {})


@pytest_twisted.ensureDeferred
async def test_a_newer_version_that_is_not_everywhere_is_a_warning(
    fakes: list[FakeScrapyd], caplog: pytest.LogCaptureFixture
) -> None:
    del fakes[1].projects["p"]["r10"]
    with caplog.at_level(logging.WARNING):
        assert await looked(fakes) == ("r9", {})
    words = "r10 is not there, so r9 is used on every node: scrapy fleet deploy"
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"n1: version: {words}", f"3 of 3 nodes: credentials: none needed: {OPEN} (n0, n1, n2)"]
    versions = [(node, verdict, words) for node, check, verdict, words in await surveyed(fakes) if check == "version"]
    assert versions == [("n0", Verdict.OK, "r9"), ("n1", Verdict.WARN, words), ("n2", Verdict.OK, "r9")]
    assert {verdict for _, _, verdict, _ in await surveyed(fakes, version="r9")} == {Verdict.OK, Verdict.RISK}


@pytest_twisted.ensureDeferred
async def test_findings_are_by_node_and_in_the_order_of_the_checks(fakes: list[FakeScrapyd]) -> None:
    expected = [
        ("answers", Verdict.OK, "running 0, pending 0"),
        ("credentials", Verdict.RISK, f"none needed: {OPEN}"),
        ("project", Verdict.OK, "p"),
        ("version", Verdict.OK, "r10"),
        ("spider", Verdict.OK, "s"),
        ("logs_dir", Verdict.OK, "served"),
        ("items_dir", Verdict.OK, "not set"),
    ]
    assert await surveyed(fakes) == [(f"n{number}", *one) for number in range(3) for one in expected]


@pytest_twisted.ensureDeferred
async def test_a_node_that_takes_any_credentials_lets_anybody_in(
    fakes: list[FakeScrapyd], caplog: pytest.LogCaptureFixture
) -> None:
    for fake in fakes[:2]:
        fake.username, fake.password = "user-x", "secret"
    nodes = [
        Node(address=NodeAddress(name=f"n{number}", url=fake.url, username="user-x", password="secret"))
        for number, fake in enumerate(fakes)
    ]
    survey = Survey(project="p", spider="s")
    await survey.ask(nodes, CHECKS)
    found = [(one.verdict, one.words) for one in survey.findings if one.check == "credentials"]
    assert found == [(Verdict.OK, "accepted")] * 2 + [(Verdict.RISK, f"none needed: {OPEN}")]
    with caplog.at_level(logging.WARNING):
        await preflight(nodes, project="p", spider="s", version="", clock=reactor)
    assert [one.getMessage() for one in caplog.records] == [f"1 of 3 nodes: credentials: none needed: {OPEN} (n2)"]
    for node in nodes:
        await node.close()


def down(fake: FakeScrapyd) -> None:
    fake.faults["*"] = Fault.DROP


def locked(fake: FakeScrapyd) -> None:
    fake.username, fake.password = "user-x", "secret"


def empty(fake: FakeScrapyd) -> None:
    fake.projects = {}


def other_spider(fake: FakeScrapyd) -> None:
    fake.projects["p"]["r10"] = ["t"]


def no_logs(fake: FakeScrapyd) -> None:
    fake.logs_dir = False


def items(fake: FakeScrapyd) -> None:
    fake.items_dir = True


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("fault", "failing", "words", "skipped"),
    [
        (down, "answers", "broke before a complete answer", "credentials project version spider logs_dir items_dir"),
        (locked, "credentials", "set username and password", "project version spider logs_dir items_dir"),
        (empty, "project", "project 'p' not found: deploy it", "version spider"),
        (other_spider, "spider", "(it has t): scrapy fleet deploy", ""),
        (no_logs, "logs_dir", "/logs/ is not served", ""),
        (items, "items_dir", "items_dir is set", ""),
    ],
)
async def test_what_needs_a_failed_check_is_not_asked(
    fakes: list[FakeScrapyd], fault: Callable[[FakeScrapyd], None], failing: str, words: str, skipped: str
) -> None:
    fault(fakes[1])
    found = await surveyed(fakes)
    assert {verdict for node, _, verdict, _ in found if node != "n1"} == {Verdict.OK, Verdict.RISK}
    of_node = {check: (verdict, words) for node, check, verdict, words in found if node == "n1"}
    assert [check for check, (verdict, _) in of_node.items() if verdict is Verdict.FAIL] == [failing]
    assert words in of_node[failing][1]
    assert [check for check, (verdict, _) in of_node.items() if verdict is Verdict.SKIPPED] == skipped.split()
    trouble = {check.name: check.trouble for check in CHECKS}[failing]
    assert {of_node[check][1] for check in skipped.split()} <= {f"not checked ({trouble})"}


@pytest_twisted.ensureDeferred
async def test_versions_without_a_common_one_fail_everywhere(fakes: list[FakeScrapyd]) -> None:
    for number, fake in enumerate(fakes):
        fake.projects["p"] = {f"r{number}": ["s"]}
    found = [(verdict, words) for _, check, verdict, words in await surveyed(fakes) if check == "version"]
    words = "project 'p': expected one version on every node, n0 has r0; n1 has r1; n2 has r2: scrapy fleet deploy"
    assert found == [(Verdict.FAIL, words)] * 3


# Waiting for nodes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(roll_call, "GRACE_SECONDS", 0.7)
    monkeypatch.setattr(preflight_module, "TELL_SECONDS", 0.3)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("endpoint", ["*", "listversions.json", "listspiders.json", "logs", "items"])
@pytest.mark.usefixtures("quick")
async def test_a_node_that_never_answers_holds_up_nobody(fakes: list[FakeScrapyd], endpoint: str) -> None:
    fakes[1].faults[endpoint] = Fault.HANG
    began = time.monotonic()
    version, faults = await looked(fakes, deadline=60, wait=60)
    assert time.monotonic() - began < 20
    assert version == "r10"
    assert faults == {"n1": "n1: no answer 0.7 s after that of another node: is it overloaded or stopped?"}


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
async def test_of_a_hundred_nodes_ten_hang_and_the_start_waits_for_none_of_them() -> None:
    fakes = [
        FakeScrapyd(faults={"*": Fault.HANG} if number % 10 == 3 else {}, projects={"p": {"1": ["s"]}}).listen()
        for number in range(100)
    ]
    try:
        began = time.monotonic()
        version, faults = await looked(fakes, deadline=60, wait=60)
        assert time.monotonic() - began < 20
    finally:
        for fake in fakes:
            await fake.close()
    assert (version, list(faults)) == ("1", [f"n{number}" for number in range(3, 100, 10)])


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("others", [Fault.SERVER_ERROR, Fault.DROP, Fault.UNAUTHORIZED, Fault.HANG])
async def test_it_waits_for_a_node_and_says_so_once(
    fakes: list[FakeScrapyd], others: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    for fake in fakes:
        fake.faults["*"] = others
    fakes[2].faults["*"] = Fault.SERVER_ERROR
    looking = Deferred.fromCoroutine(looked(fakes, wait=60, deadline=60))

    async def told() -> bool:
        return "No node can be used yet" in caplog.text

    with caplog.at_level(logging.INFO):
        await until(told)
        del fakes[2].faults["*"]
        version, faults = await looking
    assert (version, list(faults)) == ("r10", ["n0", "n1"])
    said = [record.getMessage() for record in caplog.records if record.name.startswith("scrapy_distributed")]
    assert [words.partition(" yet;")[0] for words in said] == [
        "No node can be used", "A node can be used: the crawl begins",
        f"1 of 3 nodes: credentials: none needed: {OPEN} (n2)",
    ]  # fmt: skip
    assert "at most 60 s (DISTRIBUTED_FLEET_TIMEOUT)" in said[0]
    assert [line[:5] for line in said[0].splitlines()[1:]] == ["  n0:", "  n1:", "  n2:"]


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", [locked, empty, other_spider, no_logs, items])
async def test_what_does_not_pass_by_itself_is_refused_at_once(
    fakes: list[FakeScrapyd], fault: Callable[[FakeScrapyd], None]
) -> None:
    for fake in fakes:
        fault(fake)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="none of the 3 nodes can be used") as caught:
        await looked(fakes, wait=600)
    assert not isinstance(caught.value, FleetUnusableError)
    assert time.monotonic() - began < 20


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
async def test_a_version_that_is_not_there_is_refused_though_a_node_is_down(fakes: list[FakeScrapyd]) -> None:
    down(fakes[0])
    with pytest.raises(ConfigError, match="version 'r11'"):
        await looked(fakes, version="r11", wait=600)


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.HANG])
async def test_it_does_not_wait_for_ever(fakes: list[FakeScrapyd], fault: Fault) -> None:
    for fake in fakes:
        fake.faults["*"] = fault
    began = time.monotonic()
    with pytest.raises(FleetUnusableError, match="none of the 3 nodes can be used"):
        await looked(fakes, wait=1.5, deadline=60)
    assert 1.4 < time.monotonic() - began < 20


@pytest_twisted.ensureDeferred
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.HANG])
async def test_it_can_be_interrupted(fakes: list[FakeScrapyd], fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    for fake in fakes:
        fake.faults["*"] = fault
    looking = Deferred.fromCoroutine(looked(fakes, wait=600, deadline=60))

    async def told() -> bool:
        return "No node can be used yet" in caplog.text

    await until(told)
    looking.cancel()
    with pytest.raises(CancelledError):
        await looking
    asked = [len(fake.requests) for fake in fakes]
    await deferLater(reactor, 0.5)
    assert [len(fake.requests) for fake in fakes] == asked
