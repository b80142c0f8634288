"""What comes into a shared run, and whose its walk is."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from awaiting import awaited
from ledgers import IDENTITY, body, key, receipt
from shared_runs import VERSION, SharedRun, begin, found_of

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.records import AttemptRecord
from scrapy_distributed.shared import portion
from scrapy_distributed.shared.intake import Begun, Intake, LostWalkError
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server


@awaited
async def test_each_request_is_added_once(shared: SharedRun) -> None:
    assert await shared.add(1, 2, 1, 3) == [body(1), body(2), body(3)]
    assert await shared.add(3, 4) == [body(4)]
    assert await shared.counts() == {"diverted": 4, "duplicates": 2, "queued": 4}


@awaited
async def test_no_key_is_forgotten_however_many_there_are(shared: SharedRun) -> None:
    await shared.server.command("HSET", shared.key(), "buckets", 1)  # else none is split before 650,000
    numbers = range(12_000)
    for first in range(0, len(numbers), 3000):
        assert len(await shared.add(*numbers[first : first + 3000])) == 3000
    assert await shared.add(*numbers[::7]) == []
    assert await shared.add(12_000, *numbers[::7], 12_001) == [body(12_000), body(12_001)]
    seen, buckets = map(int, await shared.server.command("HMGET", shared.key(), "seen", "buckets"))
    assert seen == 12_002
    assert seen / 40 <= buckets < seen / 40 + 2
    sizes = await shared.server.commands([("HLEN", shared.key("seen", bucket)) for bucket in range(buckets)])
    assert sum(sizes) == seen
    assert max(sizes) <= 128  # what stays compact on every server


@awaited
async def test_what_is_known_of_a_key_stays_with_it_when_its_bucket_is_split(shared: SharedRun) -> None:
    await shared.server.command("HSET", shared.key(), "buckets", 1)
    pages = [key(number) for number in range(100_000, 100_300)]
    await shared.harvest.enter_pages("1.1.aa", pages)
    await shared.add(*range(1000))
    assert await shared.harvest.enter_pages("1.1.aa", pages) == [True] * 300
    assert await shared.harvest.enter_pages("1.2.bb", pages) == [False] * 300


@awaited
async def test_keys_may_have_any_shape(shared: SharedRun) -> None:
    keys = [b"", b"a", b"a" * 12, b"a" * 12 + b"b", b"a" * 200, *(number.to_bytes(20, "big") for number in range(50))]
    entries = [(name, body(number)) for number, name in enumerate(keys)]
    assert len(await shared.intake.add(entries)) == len(keys)
    assert await shared.intake.add(entries) == []


@pytest.mark.parametrize("known", [(), (2,), (1, 2, 3)], ids=["all new", "one known", "all known"])
@awaited
async def test_what_was_added_and_not_heard_of_is_told_again(
    shared: SharedRun, monkeypatch: pytest.MonkeyPatch, known: tuple[int, ...]
) -> None:
    await shared.add(*known)
    before = await shared.counts()
    script, lost = shared.server.script, []

    async def loses_an_answer(name: str, *args: Any) -> Any:
        answer = await script(name, *args)
        if answer[0] is not None and not lost:
            lost.append(answer)
            raise LedgerUnavailableError("away")
        return answer

    monkeypatch.setattr(shared.server, "script", loses_an_answer)
    with pytest.raises(LedgerUnavailableError, match="away"):
        await shared.add(1, 2, 3, 1)
    assert lost
    new = [number for number in (1, 2, 3) if number not in known]
    assert await shared.add(1, 2, 3, 1) == [body(number) for number in new]
    assert await shared.add(4) == [body(4)]
    diverted = before.get("diverted", 0) + len(new) + 1
    assert await shared.counts() == {"diverted": diverted, "duplicates": 1 + len(known), "queued": diverted}
    assert list((await shared.claim()).bodies) == [body(number) for number in (*known, *new, 4)]


@awaited
async def test_what_is_added_in_small_calls_is_in_as_few_portions_and_nothing_changes_place(shared: SharedRun) -> None:
    for first in range(0, 250, 10):
        await shared.add(*range(first, first + 10), 0)
    assert (await shared.intake.state()).portions == 3
    assert await shared.server.command("HLEN", shared.key("portion")) == 3
    bodies = []
    for size in (30, 100, 1000):
        bodies += (await shared.claim(size)).bodies
    assert bodies == [body(number) for number in range(250)]


@awaited
async def test_of_a_portion_those_wait_that_are_new(shared: SharedRun) -> None:
    await shared.add(2, 3, 5, 9)
    portions = [await shared.server.command("HLEN", shared.key("portion"))]
    assert await shared.add(1, 2, 3, 4, 5, 6, 1, 7, 9) == [body(number) for number in (1, 4, 6, 7)]
    assert await shared.add(2, 3, 1) == []
    assert await shared.add(8, 2, 10) == [body(8), body(10)]
    portions.append(await shared.server.command("HLEN", shared.key("portion")))
    assert portions == [1, 1]
    expected = [body(number) for number in (2, 3, 5, 9, 1, 4, 6, 7, 8, 10)]
    one = await shared.claim(6)
    two = await shared.claim(100)
    assert [*one.bodies, *two.bodies] == expected
    assert await shared.counts() == {"diverted": 10, "duplicates": 9, "in_flight": 10}
    for claimed in (two, one):
        assert await shared.server.command("EXISTS", shared.key("portion")) == 1
        await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert await shared.server.command("EXISTS", shared.key("portion"), shared.key("used"), shared.key("portions")) == 0


@awaited
async def test_a_portion_of_which_nothing_is_new_is_not_kept(shared: SharedRun) -> None:
    await shared.add(*range(150))
    assert await shared.add(*range(250)) == [body(number) for number in range(150, 250)]
    assert await shared.add(*range(200, 250), *range(50)) == []
    assert await shared.add(250) == [body(250)]
    assert await shared.server.command("HLEN", shared.key("portion")) == 3
    assert list((await shared.claim(1000)).bodies) == [body(number) for number in range(251)]


@awaited
async def test_what_a_worker_has_found_is_added_without_what_is_known_also_since_just_now(
    shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.add(*range(10))
    claimed = await shared.claim()
    await shared.worker().stage_found(claimed, 0, found_of(*range(20), 10))
    script = shared.server.script

    async def while_others_add(name: str, *args: Any) -> Any:
        answer = await script(name, *args)
        if name == "moving":
            monkeypatch.setattr(shared.server, "script", script)
            await shared.add(13, 14, 16)
        return answer

    monkeypatch.setattr(shared.server, "script", while_others_add)
    await shared.worker().settle(claimed, receipt(claimed.attempt), found=1)
    assert await shared.counts() == {"diverted": 20, "duplicates": 14, "crawled": 10, "queued": 10}
    rest = await shared.claim()
    assert list(rest.bodies) == [body(number) for number in (13, 14, 16, 10, 11, 12, 15, 17, 18, 19)]
    await shared.worker().settle(rest, receipt(rest.attempt))
    assert await shared.server.command("EXISTS", shared.key("portion"), shared.key("used"), shared.key("portions")) == 0


@awaited
async def test_a_portion_of_which_a_worker_has_taken_some_grows_while_some_of_it_waits(shared: SharedRun) -> None:
    bodies: list[str] = []
    for first in range(0, 60, 10):
        await shared.add(*range(first, first + 10))
        bodies += (await shared.claim(7)).bodies
    bodies += (await shared.claim(1000)).bodies
    assert bodies == [body(number) for number in range(60)]
    assert await shared.counts() == {"diverted": 60, "in_flight": 60}


@awaited
async def test_a_portion_of_another_coordinator_does_not_grow(shared: SharedRun) -> None:
    await shared.add(1, 2)
    heir = Intake(shared.server, shared.project)
    await begin(heir)
    await shared.intake.leave_walk()
    await heir.walk(60)
    await heir.add([(key(3), body(3)), (key(4), body(4))])
    await heir.leave_walk()
    await shared.intake.walk(60)
    await shared.add(5)
    assert list((await shared.claim()).bodies) == [body(number) for number in range(1, 6)]


@awaited
async def test_portions_of_long_requests_are_shorter(shared: SharedRun) -> None:
    long = [(key(number), json.dumps("http://a/" + secrets.token_hex(40_000))) for number in range(7)]
    assert len(await shared.intake.add(long[:5])) == 5
    assert len(await shared.intake.add(long[5:])) == 2
    texts = await shared.server.command("HVALS", shared.key("portion"))
    assert len(texts) > 1
    assert max(map(len, texts)) <= portion.MOST_BYTES
    bodies: list[str] = []
    while len(bodies) < len(long):
        bodies += (await shared.claim()).bodies
    assert bodies == [text for _, text in long]


@awaited
async def test_one_coordinator_walks_at_a_time_and_the_next_when_its_lease_ends(shared: SharedRun) -> None:
    await shared.add(0)
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    home = await shared.harvest.first()
    assert home is not None
    heir = Intake(shared.server, shared.project)
    assert (await begin(heir)).run == shared.name
    refused = await heir.walk(0.1)
    assert (refused.is_ours, refused.name) == (False, shared.intake.owner)
    assert 590 < refused.seconds <= 600
    assert (await shared.intake.walk(0.05)).is_ours
    await asyncio.sleep(0.06)
    assert (await heir.walk(60)).is_ours
    late_ones = (
        shared.add(1), shared.intake.walked(), shared.intake.walk_on(), shared.intake.lost_own({"dns": 1}),
        shared.intake.stored(), shared.harvest.taken(home), shared.harvest.enter_pages("1.1.aa", [key(2)]),
    )  # fmt: skip
    for late in late_ones:
        with pytest.raises(LostWalkError, match="is another coordinator's by now"):
            await late
    await heir.add([(key(1), body(1))])
    await heir.leave_walk()
    assert (await shared.intake.walk(60)).is_ours
    assert await shared.counts() == {"diverted": 2, "queued": 1, "crawled": 1}
    assert await shared.harvest.first() == home
    assert not (await shared.account.losses()).own


@awaited
async def test_the_same_command_takes_up_its_run_until_the_result_is_stored(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.intake.walked()
    again = await shared.again()
    assert again == Begun(shared.name, False, "4f2a", walked=True, ended=False, stopped=None)
    await shared.intake.stored()  # too early: it has not ended
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert await shared.again() == Begun(shared.name, False, "4f2a", walked=True, ended=True, stopped=None)
    await shared.intake.stored()
    assert await shared.counts() == {"diverted": 1, "crawled": 1}
    assert (await shared.again()).is_new


@awaited
async def test_a_run_begins_afresh_where_that_is_wished_and_the_older_one_is_over(shared: SharedRun) -> None:
    await shared.add(1)
    other = Intake(shared.server, shared.project)
    assert (await begin(other, resume=False)).is_new
    assert await shared.ended()
    assert await shared.counts() == {"diverted": 1, "not_crawled": 1}
    await other.walk(60)
    assert await other.add([(key(1), body(1))]) == [body(1)]
    assert (await shared.claim()).run == other.run


@pytest.mark.parametrize("resume", [True, False])
@awaited
async def test_a_run_whose_beginning_was_not_heard_of_is_the_same_and_new(
    server: Server, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    script = server.script

    async def asked_twice(name: str, *args: Any) -> Any:
        await script(name, *args)
        return await script(name, *args)

    monkeypatch.setattr(server, "script", asked_twice)
    intake = Intake(server, f"begun-twice-{resume}")
    begun = await begin(intake, resume=resume)
    assert begun == Begun(begun.run, True, VERSION, walked=False, ended=False, stopped=None)
    assert await server.command("LRANGE", f"{intake.keys.all}:open", 0, -1) == [begun.run.encode()]


@awaited
async def test_template_and_version_are_those_of_the_last_command_but_not_of_one_that_only_looks_on(
    server: Server,
) -> None:
    shared = await SharedRun.begin(server)

    async def begun(version: str) -> str:
        rules = RunRules(max_attempts=3)
        other = Intake(server, shared.project)
        found = await other.begin(IDENTITY, spider="s", template="{}", version=version, rules=rules, resume=True)
        return found.version

    assert await begun("new") == "4f2a"
    await shared.intake.leave_walk()
    assert await begun("new") == "new"


@awaited
async def test_a_run_is_over_when_it_is_walked_and_nothing_is_left(shared: SharedRun) -> None:
    await shared.add(1, 2)
    one, two = await shared.claim(1), await shared.claim(1)
    await shared.worker().settle(one, receipt(one.attempt))
    await shared.intake.walked()
    assert not await shared.ended()
    await shared.intake.walk_on()
    await shared.worker().settle(two, receipt(two.attempt))
    assert not await shared.ended()
    await shared.intake.walked()
    assert await shared.ended()
    assert await shared.server.command("LLEN", shared.intake.keys.all + ":open") == 0


@awaited
async def test_who_waits_hears_of_what_happens_also_where_it_happened_before(shared: SharedRun) -> None:
    nothing = await shared.nothing()
    waiting = asyncio.ensure_future(shared.server.wait(shared.intake.keys, nothing.event, 30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await shared.add(1)
    event = await asyncio.wait_for(waiting, 10)
    assert event != nothing.event
    assert await shared.server.wait(shared.intake.keys, nothing.event, 30) == event
    assert await shared.server.wait(shared.intake.keys, event, 0.05) == event


@awaited
async def test_pages_that_have_brought_items_are_requests_no_more(shared: SharedRun) -> None:
    await shared.add(1)
    keys = [key(1), key(2), key(3)]
    assert await shared.harvest.enter_pages("1.1.aa", keys) == [False, True, True]
    assert await shared.harvest.enter_pages("1.1.aa", keys) == [False, True, True]  # the answer may be lost
    assert await shared.harvest.enter_pages("1.2.bb", keys) == [False, False, False]
    assert await shared.add(2, 3, 4) == [body(4)]
    assert await shared.counts() == {"diverted": 2, "duplicates": 2, "queued": 2}


@awaited
async def test_items_wait_in_the_order_in_which_they_counted_until_they_are_home(shared: SharedRun) -> None:
    await shared.add(*range(4))
    one, two = await shared.claim(2), await shared.claim(2)
    for claimed, lines in ((two, b"two\n"), (one, b"one\n")):
        await shared.worker().stage_items(claimed, 0, lines)
        await shared.worker().stage_items(claimed, 1, lines)
        report = receipt(claimed.attempt, 0b11, items=2, filtered={"duplicate": [1]}, stats={"a": 1.5})
        await shared.worker().settle(claimed, report, lines=2)
    assert (await shared.intake.state()).items == 4
    for claimed, line in ((two, b"two\n"), (one, b"one\n")):
        for _ in range(2):  # also after a coordinator was killed
            home = await shared.harvest.first()
            assert home is not None
            assert (home.label, home.items, home.parts, home.settled) == (claimed.attempt.label, 2, 2, 0b11)
            assert (home.size, home.last, home.stats, home.worker) == (2, False, {"a": 1.5}, "w1")
        assert [await shared.harvest.part(home, index) for index in range(2)] == [line] * 2
        assert await shared.harvest.duplicates(home) == [claimed.bodies[1]]
        for _ in range(2):
            await shared.harvest.taken(home, items=2, twice=1, size=9, digest="ab")
    assert await shared.harvest.first() is None
    assert await shared.staged() == []
    assert [one.home async for one in each_attempt(shared)] == [2, 2]


@awaited
async def test_of_an_attempt_whose_items_go_elsewhere_none_have_come_home(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt, items=2, feeds=(("file:///feeds/1.jl", 2),)))
    home = await shared.harvest.first()
    assert home is not None
    await shared.harvest.taken(home)
    (accepted,) = await shared.account.accepted()
    assert (accepted.home, [feed.url for feed in accepted.feeds]) == (None, ["file:///feeds/1.jl"])


async def each_attempt(shared: SharedRun) -> AsyncIterator[AttemptRecord]:
    for batch in (1, 2):
        for record in await shared.account.attempts(batch):
            yield record


@awaited
async def test_a_run_that_is_forgotten_leaves_nothing(shared: SharedRun) -> None:
    await shared.add(*range(300))
    claimed = await shared.claim(50)
    await shared.worker().stage_found(claimed, 0, found_of(400))
    await shared.worker().stage_items(claimed, 0, b"x")
    failed = receipt(claimed.attempt, 0b111, failed={"dns": [0]}, followed={"dns": 1}, examples={"dns": "e"},
                     landed=((1, "aa"),), clean=True, items=1)  # fmt: skip
    await shared.worker().settle(claimed, failed, found=1, lines=1)
    await shared.worker().reject(await shared.claim(10), "killed", counts=True)
    with pytest.raises(Exception, match="it is not over"):
        await shared.control.forget()
    await shared.control.stop("cancelled")
    await shared.intake.leave_walk()
    await shared.control.forget()
    names = await shared.server.command("KEYS", "*" + shared.name + "*")
    assert names == []
    assert (await shared.again()).is_new
