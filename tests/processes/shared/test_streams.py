"""The stream into which items of a shared run go: each is there once, whoever puts it there, and whatever the server
goes through meanwhile."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from awaiting import awaited
from cutting_proxy import CuttingProxy
from ledgers import receipt
from shared_runs import SharedRun, begin, begun
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.harvest import Entry, Home, Streamed
from scrapy_distributed.shared.intake import Intake, LostWalkError
from scrapy_distributed.shared.server import Server

ONE, TWO, THREE = (Entry(b'{"n": %d}' % number, "dict") for number in (1, 2, 3))


async def brought(shared: SharedRun, *numbers: int) -> Home:
    """An attempt that counts, at a batch of these requests."""
    await shared.add(*numbers)
    claimed = await shared.claim()
    await shared.worker().stage_items(claimed, 0, b"lines\n")
    await shared.worker().settle(claimed, receipt(claimed.attempt, items=3), lines=1)
    return await first(shared)


async def first(shared: SharedRun) -> Home:
    home = await shared.harvest.first()
    assert home is not None
    return home


async def publish(shared: SharedRun, home: Home, before: int, *entries: Entry) -> Streamed:
    return await shared.harvest.publish(home, "s", before, entries)


async def stream(shared: SharedRun) -> list[dict[str, str]]:
    rows = await shared.server.command("XRANGE", shared.key("items"), "-", "+")
    return [{name.decode(): value.decode() for name, value in zip(row[::2], row[1::2], strict=True)} for _, row in rows]


@awaited
async def test_an_entry_says_what_it_is_and_which_of_its_job(shared: SharedRun) -> None:
    home = await brought(shared, 1)
    assert await publish(shared, home, 0, ONE, TWO) == (2, 0)
    assert await publish(shared, home, 2, THREE) == (3, 0)
    await shared.harvest.taken(home, items=3)
    found = await stream(shared)
    assert [entry.pop("number") for entry in found] == ["1", "2", "3"]
    assert [entry.pop("item") for entry in found] == ['{"n": 1}', '{"n": 2}', '{"n": 3}']
    job = f"{shared.name}-000001-1-{home.secret}"
    assert found == [{"class": "dict", "spider": "s", "run": shared.name, "batch": "1", "job": job}] * 3
    results = await shared.account.results()
    assert (results.counted, results.put, results.there, results.waiting) == (3, 3, 3, 0)
    assert results.good
    assert results.lines() == [f"3 items that count, 3 entries in {shared.key('items')}"]


@awaited
async def test_what_is_there_is_not_put_there_again(shared: SharedRun) -> None:
    home = await brought(shared, 1)
    await publish(shared, home, 0, ONE, TWO)
    assert await publish(shared, home, 0, ONE, TWO) == (2, 0)  # nobody has heard of the answer
    assert (await first(shared)).streamed.place == 2  # and then he ended
    assert not (await shared.account.results()).good
    assert "1 job settled whose items are still to be put there" in (await shared.account.results()).lines()[1]
    assert await publish(shared, home, 2, THREE) == (3, 0)
    assert len(await stream(shared)) == 3


@awaited
async def test_who_has_lost_the_walk_puts_nothing_there(shared: SharedRun) -> None:
    home = await brought(shared, 1)
    own = await shared.intake.begin_own("h", anew=True)
    await shared.intake.leave_walk()
    other = Intake(shared.server, shared.project)
    other.run = shared.name
    assert (await other.walk(60)).is_ours
    for what in (
        publish(shared, home, 0, ONE), shared.intake.begin_own("h", anew=True),
        shared.intake.stage_own(own, 0, b"line\n", 1), shared.intake.settle_own(),
    ):  # fmt: skip
        with pytest.raises(LostWalkError):
            await what
    assert await stream(shared) == []
    shared.intake = other
    assert await publish(shared, home, 0, ONE) == (1, 0)


@awaited
async def test_what_is_told_while_items_are_put_there_is_of_one_moment(
    shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each answer of the server an attempt of three items is put there as a whole, and the next one in part."""
    account, requests = shared.account, count(1)
    command, script = shared.server.command, shared.server.script

    async def goes_on() -> None:
        monkeypatch.undo()
        while (home := await shared.harvest.first()) is not None:
            await publish(shared, home, home.streamed.place, *[ONE, TWO, THREE][home.streamed.place :])
            await shared.harvest.taken(home, items=3)
        await publish(shared, await brought(shared, next(requests)), 0, ONE)
        patch()

    async def command_of_busy(*words: Any) -> Any:
        answer = await command(*words)
        await goes_on()
        return answer

    async def script_of_busy(*words: Any) -> Any:
        answer = await script(*words)
        await goes_on()
        return answer

    def patch() -> None:
        monkeypatch.setattr(shared.server, "command", command_of_busy)
        monkeypatch.setattr(shared.server, "script", script_of_busy)

    await goes_on()
    for turn in range(3):
        results = await account.results()
        assert (results.counted, results.put, results.there) == (3 * turn, 3 * turn + 1, 3 * turn + 1)
        assert [line.partition(" whose ")[0] for line in results.lines()[1:]] == ["1 job settled"]


# What a coordinator has scraped itself


@awaited
async def test_what_was_scraped_here_counts_when_nobody_scrapes_it_again(shared: SharedRun) -> None:
    own = await shared.intake.begin_own("h", anew=True)
    await shared.intake.stage_own(own, 0, b"one\ntwo\n", 2)
    await shared.intake.stage_own(own, 1, b"three\n", 1)
    await shared.intake.stage_own(own, 1, b"three\n", 1)  # nobody has heard of the answer
    assert not await shared.intake.settle_own()
    assert await shared.harvest.first() is None
    assert (await shared.intake.state()).own == 1
    await shared.intake.walked()
    later = await shared.intake.begin_own("h", anew=False)  # another command, which scrapes nothing
    assert later.source == own.source
    assert await shared.intake.settle_own()
    assert (await shared.intake.state()).own == 0
    home = await first(shared)
    assert (home.batch, home.number, home.items, home.parts, home.source) == (0, 1, 3, 1, own.source)
    assert await shared.harvest.part(home, 0) == b"one\ntwo\nthree\n"
    await shared.harvest.taken(home, items=3)
    assert await shared.harvest.first() is None
    assert await shared.staged() == []


@awaited
async def test_what_was_scraped_here_and_does_not_count_yet_is_told(shared: SharedRun) -> None:
    own = await shared.intake.begin_own("h", anew=True)
    assert (await shared.account.results()).good
    await shared.intake.stage_own(own, 0, b"one\ntwo\n", 2)
    await shared.control.stop("cancelled")
    await shared.intake.leave_walk()  # nobody is there who would put it there
    results = await shared.account.results()
    assert (results.own, results.good) == (2, False)
    assert "2 items scraped by the crawl command itself and still to be put there" in results.lines()[1]
    assert (await shared.intake.walk(60)).is_ours
    assert await shared.intake.settle_own()
    results = await shared.account.results()
    assert (results.own, results.waiting) == (0, 1)


@awaited
async def test_what_is_scraped_here_one_by_one_is_kept_in_few_parts(shared: SharedRun) -> None:
    """Whoever drops or fetches it does so for each part."""
    own = await shared.intake.begin_own("h", anew=True)
    small, large = [b"%d\n" % number for number in range(200)], [b"x" * 700_000 + b"\n"] * 3
    for index, line in enumerate([*small, *large, *small]):
        await shared.intake.stage_own(own, index, line, 1)
    assert len(await shared.staged()) == 3
    await shared.intake.walked()
    assert await shared.intake.settle_own()
    home = await first(shared)
    assert (home.items, home.parts) == (403, 3)
    lines = b"".join([await shared.harvest.part(home, index) for index in range(3)])
    assert lines == b"".join([*small, *large, *small])
    await shared.harvest.taken(home, items=403)
    assert await shared.staged() == []


@awaited
async def test_what_counts_of_what_was_scraped_here_is_not_scraped_again(shared: SharedRun) -> None:
    """The coordinator has failed after that, and says that its walk is not done."""
    own = await shared.intake.begin_own("h", anew=True)
    await shared.intake.stage_own(own, 0, b"one\n", 1)
    await shared.intake.walked()
    assert await shared.intake.settle_own()
    await shared.intake.walk_on()
    assert (await shared.intake.state()).walked is not None


@awaited
async def test_what_an_earlier_walk_has_kept_goes_with_the_next_one(shared: SharedRun) -> None:
    before = await shared.intake.begin_own("h", anew=True)
    await shared.intake.stage_own(before, 0, b"one\n", 1)
    await shared.harvest.enter_pages(before.source, [b"page"])
    own = await shared.intake.begin_own("h", anew=True)
    assert (await shared.intake.state()).own == 1
    assert await shared.staged() == []
    await shared.intake.stage_own(own, 0, b"one\n", 1)
    assert await shared.harvest.enter_pages(own.source, [b"page"]) == [True]  # nobody else has brought its items
    await shared.control.stop("enough")  # that ends the walk, too
    assert await shared.intake.settle_own()
    assert (await first(shared)).token == own.token


@awaited
async def test_pages_of_a_walk_whose_items_count_bring_none_when_it_is_repeated(shared: SharedRun) -> None:
    """As it is where a run that was stopped goes on."""
    own = await shared.intake.begin_own("h", anew=True)
    await shared.intake.stage_own(own, 0, b"one\n", 1)
    await shared.harvest.enter_pages(own.source, [b"page"])
    await shared.control.stop("enough")
    assert await shared.intake.settle_own()
    again = await shared.intake.begin_own("h", anew=True)
    assert again.source != own.source
    assert await shared.harvest.enter_pages(again.source, [b"page", b"other"]) == [False, True]
    assert await shared.staged() == [f"{own.token}:i:0"]


@awaited
async def test_a_server_that_has_forgotten_what_was_scraped_here_takes_no_more_of_it(shared: SharedRun) -> None:
    own = await shared.intake.begin_own("h", anew=True)
    await shared.server.command("UNLINK", shared.key("attempt", "0.1"), shared.key("own"))
    with pytest.raises(LedgerError, match="has forgotten what it had taken"):
        await shared.intake.stage_own(own, 0, b"one\n", 1)


@awaited
async def test_a_server_that_has_forgotten_the_last_of_what_was_scraped_here_takes_no_more_of_it(
    shared: SharedRun,
) -> None:
    own = await shared.intake.begin_own("h", anew=True)
    await shared.intake.stage_own(own, 0, b"one\n", 1)
    before = await shared.server.command("DUMP", shared.key("attempt", "0.1"))
    for index in (1, 2):
        await shared.intake.stage_own(own, index, b"more\n", 1)
    await shared.server.command("RESTORE", shared.key("attempt", "0.1"), 0, before, "REPLACE")
    await shared.server.command("SET", shared.key("staged", own.token, "i", 0), "one\n")
    with pytest.raises(LedgerError, match="has forgotten what it had taken"):
        await shared.intake.stage_own(own, 3, b"four\n", 1)
    await shared.control.stop("enough")
    assert await shared.intake.settle_own()
    home = await first(shared)
    assert (home.items, await shared.harvest.part(home, 0)) == (1, b"one\n")


@awaited
async def test_a_run_that_is_forgotten_tells_how_many_entries_it_had(shared: SharedRun) -> None:
    home = await brought(shared, 1)
    await publish(shared, home, 0, ONE, TWO)
    await shared.intake.stage_own(await shared.intake.begin_own("h", anew=True), 0, b"one\n", 1)
    await shared.intake.leave_walk()
    assert await shared.control.forget(force=True) == 2
    assert await shared.server.command("KEYS", f"*{shared.name}*") == []


@awaited
async def test_a_run_whose_items_are_still_put_there_is_not_forgotten(shared: SharedRun) -> None:
    home = await brought(shared, 1)
    await shared.intake.walked()
    assert (await shared.intake.state()).ended
    for force in (False, True):
        with pytest.raises(LedgerError, match="has it now"):
            await shared.control.forget(force=force)
    assert await publish(shared, home, 0, ONE) == (1, 0)


@awaited
async def test_nothing_is_put_there_while_a_run_is_forgotten(
    shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its coordinator had hung for longer than its lease, and wakes up between any two steps."""
    home = await brought(shared, 1)
    await shared.intake.walked()
    await shared.server.command("HSET", shared.key(), "owner_until", 1)
    command, woken = shared.server.command, []

    async def wakes(*words: Any) -> Any:
        answer = await command(*words)
        monkeypatch.setattr(shared.server, "command", command)
        woken.append(await shared.intake.walk(60))
        with pytest.raises(LostWalkError):
            await publish(shared, home, 0, ONE)
        monkeypatch.setattr(shared.server, "command", wakes)
        return answer

    monkeypatch.setattr(shared.server, "command", wakes)
    await shared.control.forget()
    monkeypatch.undo()
    assert not any(owner.is_ours for owner in woken)
    assert await shared.server.command("KEYS", f"*{shared.name}*") == []
    assert not (await shared.intake.walk(60)).is_ours
    assert await shared.server.command("KEYS", f"*{shared.name}*") == []


# What becomes of it with its server


@awaited
async def test_answers_that_are_lost_are_given_again(child: ValkeyChild, tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    async with CuttingProxy(path, child.path) as proxy, begun(RedisAddress.from_url(f"unix://{path}")) as shared:
        proxy.lose = 1
        own = await shared.intake.begin_own("h", anew=True)
        assert await shared.server.command("LLEN", shared.key("own")) == 1
        proxy.lose = 1
        await shared.intake.stage_own(own, 0, b"one\n", 1)
        home = await brought(shared, 1)
        proxy.lose = 1
        assert await publish(shared, home, 0, ONE, TWO) == (2, 0)
        await shared.harvest.taken(home, items=2)
        await shared.intake.walked()
        proxy.lose = 1
        assert await shared.intake.settle_own()
        assert (await first(shared)).items == 1
        assert len(await stream(shared)) == 2


@awaited
async def test_a_full_server_takes_what_is_staged_into_the_stream_and_nothing_more(child: ValkeyChild) -> None:
    with valkey() as small:
        async with begun(small.address) as shared:
            home = await brought(shared, 1)
            own = await shared.intake.begin_own("h", anew=True)
            await shared.intake.stage_own(own, 0, b"one\n", 1)
            await shared.server.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(LedgerUnavailableError, match=r"is full \(maxmemory\)"):
                await shared.intake.stage_own(own, 1, b"two\n", 1)
            assert await publish(shared, home, 0, ONE) == (1, 0)
            await shared.harvest.taken(home, items=1)
            await shared.intake.walked()
            assert await shared.intake.settle_own()
            assert (await first(shared)).items == 1


@awaited
async def test_a_full_server_takes_the_next_coordinator_who_frees_it(child: ValkeyChild) -> None:
    with valkey() as small:
        async with begun(small.address) as shared:
            await shared.intake.come_home("here")
            home = await brought(shared, 1)
            own = await shared.intake.begin_own("h", anew=True)
            await shared.intake.stage_own(own, 0, b"one\n", 1)
            await shared.intake.walked()
            await shared.server.command("HSET", shared.key(), "owner_until", 1)  # it was killed a while ago
            await shared.server.command("CONFIG", "SET", "maxmemory", 1)
            shared.intake = Intake(shared.server, shared.project)
            assert not (await begin(shared.intake)).is_new
            assert (await shared.intake.walk(60)).is_ours
            await shared.intake.come_home("there")
            assert await shared.intake.home() == "here"
            await shared.intake.begin_own("h", anew=False)
            await shared.intake.lost_own({"item can't be kept": 1})
            assert await shared.harvest.enter_pages(home.source, [b"page"]) == [True]
            assert await publish(shared, home, 0, ONE) == (1, 0)
            await shared.harvest.taken(home, items=1)
            assert await shared.intake.settle_own()
            assert (await first(shared)).token == own.token


@awaited
async def test_any_prefix_of_the_append_only_file_has_each_entry_once(tmp_path: Path) -> None:
    with valkey(appendonly="yes", appendfsync="always") as child:
        async with begun(child.address) as shared:
            await every_step(shared)
            keys, name, project = shared.intake.keys, shared.name, shared.project
        child.kill()
        whole = tmp_path / "whole"
        shutil.copytree(child.folder / "appendonlydir", whole)
        (log,) = whole.glob("*.incr.aof")
        size = log.stat().st_size
        there = []
        for end in range(size // 10, size, size // 40):
            shutil.rmtree(child.folder / "appendonlydir")
            shutil.copytree(whole, child.folder / "appendonlydir")
            with (child.folder / "appendonlydir" / log.name).open("r+b") as file:
                file.truncate(end)
            child.start()
            server = await Server.connect(child.address)
            again = SharedRun(server, shared.intake, project)
            again.intake.server = server
            if await server.command("EXISTS", keys.of(name)):
                there.append(await holds(again))
            await server.close()
            child.kill()
    assert there == sorted(there)
    assert len(set(there)) > 5


async def every_step(shared: SharedRun) -> None:
    for turn in range(8):
        home = await brought(shared, *range(10 * turn, 10 * turn + 10))
        await publish(shared, home, 0, ONE, TWO)
        await publish(shared, home, 2, THREE)
        await shared.harvest.taken(home, items=3)
        own = await shared.intake.begin_own("h", anew=not turn)
        await shared.intake.stage_own(own, 0, b"one\n", 1)
    await shared.intake.walked()
    await shared.intake.settle_own()
    while (home_of_own := await shared.harvest.first()) is not None:
        await publish(shared, home_of_own, 0, ONE)
        await shared.harvest.taken(home_of_own, items=1)


async def holds(shared: SharedRun) -> int:
    """How many entries there are: as many of each job as are counted with it, in their order."""
    found: dict[str, list[int]] = {}
    for entry in await stream(shared):
        found.setdefault(entry["job"], []).append(int(entry["number"]))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in found.values())
    state: Any = await shared.intake.state()
    assert state.streamed == sum(map(len, found.values()))
    home = await shared.harvest.first()
    if home is not None:
        assert home.streamed.place == len(found.get(f"{shared.name}-{home.batch:06}-{home.number}-{home.secret}", []))
    return int(state.streamed)
