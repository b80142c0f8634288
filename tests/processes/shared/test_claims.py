"""Which batches workers get, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from awaiting import awaited
from ledgers import body, receipt
from shared_runs import SharedRun, found_of

from scrapy_distributed.ledger.rules import Objection, Settlement
from scrapy_distributed.ledger.states import Blame, Fate
from scrapy_distributed.shared.claims import Claimed, Nothing, PassedOver, StagedLostError
from scrapy_distributed.shared.pace import FIRST, GROWTH, SECONDS, WORTH
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.payload import MAX_VALUE_BYTES, decode_payload
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.wire.session import encode_session, with_session


@awaited
async def test_a_worker_gets_what_was_added_first_and_all_that_it_wants_where_it_is_alone(shared: SharedRun) -> None:
    await shared.add(*range(250))
    one, two = await shared.claim(120), await shared.claim(500)
    assert one.bodies == [body(number) for number in range(120)]
    assert two.bodies == [body(number) for number in range(120, 250)]
    assert decode_payload(one.payload)[0] == "http://a/0"
    assert await shared.counts() == {"diverted": 250, "in_flight": 250}


@awaited
async def test_what_is_settled_leaves_the_server(shared: SharedRun) -> None:
    await shared.add(*range(250))
    for _ in range(3):
        claimed = await shared.claim(90)
        await shared.worker().settle(claimed, receipt(claimed.attempt))
    for name in ("portion", "used", "portions"):
        assert await shared.server.command("EXISTS", shared.key(name)) == 0
    assert await shared.counts() == {"diverted": 250, "crawled": 250}
    assert await shared.server.command("EXISTS", shared.key("lease")) == 0


@awaited
async def test_no_worker_gets_more_than_its_share_of_what_waits(shared: SharedRun) -> None:
    await shared.nothing("other")  # a slot that has joined
    await shared.worker("third", slots=2).claim(lambda spider: 1)
    await shared.add(*range(100))
    assert len((await shared.claim(200)).bodies) == 25
    assert len((await shared.claim(200)).bodies) == 19
    assert len((await shared.claim(10)).bodies) == 10
    await shared.worker("third").leave()
    assert len((await shared.claim(200)).bodies) == 23  # of 46, for two slots


@awaited
async def test_a_job_gets_as_many_as_are_worth_it_all_the_same(shared: SharedRun) -> None:
    await shared.nothing("other")
    await shared.add(*range(10))
    assert len((await shared.claim(8 * WORTH)).bodies) == 8


@awaited
async def test_one_that_is_new_gets_as_many_as_jobs_of_the_run_do_in_half_a_minute(shared: SharedRun) -> None:
    await shared.add(*range(1000))
    first = await shared.claim(0)
    assert len(first.bodies) == FIRST
    await shared.worker().settle(first, took(first, 1.0))
    second = await shared.claim(0, "w2")
    assert len(second.bodies) == FIRST * GROWTH, "these may have been quick ones by chance"
    await shared.worker("w2").settle(second, took(second, 9.0))
    third = await shared.claim(0, "w3")
    assert len(third.bodies) == SECONDS * 50 / 10
    await shared.worker("w3").settle(third, took(third, 1500.0))
    assert len((await shared.claim(0, "w4")).bodies) == SECONDS * 100 // 755, "what was long ago counts half"
    assert len((await shared.claim(70, "w5")).bodies) == 70


def took(claimed: Claimed, seconds: float) -> Receipt:
    stats = {"distributed/job_seconds": seconds + 0.5, "distributed/startup_seconds": 0.5}
    return receipt(claimed.attempt, stats=stats)


@awaited
async def test_a_worker_that_was_not_heard_of_for_long_has_no_share(shared: SharedRun) -> None:
    await shared.nothing("other")
    await shared.add(*range(10))
    assert len((await shared.claim(100)).bodies) == 5
    await shared.server.command("ZADD", shared.intake.keys.all + ":heard", 1, "other")
    assert len((await shared.claim(100)).bodies) == 5
    assert [worker.worker for worker in (await shared.intake.state()).workers] == ["w1"]


@awaited
async def test_a_worker_that_stands_aside_is_there_and_has_no_share(shared: SharedRun) -> None:
    await shared.nothing("other")
    other = shared.worker("other")
    other.joined = replace(other.joined, state="takes nothing")
    await other.stand_aside()
    await shared.add(*range(10))
    claimed = await shared.claim()
    assert (len(claimed.bodies), claimed.others) == (10, 0)
    rows = (await shared.intake.state()).workers
    assert [(row.worker, row.state) for row in rows] == [("other", "takes nothing"), ("w1", "")]
    await shared.add(*range(10, 30))
    await shared.claim(1, "other")
    assert len((await shared.claim()).bodies) == 10, "it is back: 19 for two"


@awaited
async def test_workers_are_told_with_what_they_say_of_themselves_also_those_of_another_release(
    shared: SharedRun,
) -> None:
    worker = shared.worker(slots=3)
    worker.joined = replace(worker.joined, state="benched for 40 s")
    await shared.nothing()
    other = json.dumps({"worker": "w9", "slots": 2, "mood": "well"})
    await shared.server.command("HSET", shared.intake.keys.all + ":workers", "w9", other)
    state = await shared.intake.state()
    first, second = state.workers
    assert (first.worker, first.host, first.slots, first.state) == ("w1", "h", 3, "benched for 40 s")
    assert (first.version, first.spiders) == ("4f2a", ("s",))
    assert 0 <= first.seen < 10
    assert (second.worker, second.slots, second.version) == ("w9", 2, "")
    assert state.slots == 5


@awaited
async def test_a_worker_gets_nothing_of_another_version_spider_or_will_and_is_told_why(server: Server) -> None:
    shared = await SharedRun.begin(server)
    await shared.add(1)
    name = shared.name
    assert (await shared.worker("w2", version="5e").claim(len)).passed_over == [
        PassedOver(name, "s", "4f2a", "version")
    ]
    assert (await shared.worker("w3", spiders=("t",)).claim(len)).passed_over == [
        PassedOver(name, "s", "4f2a", "spider")
    ]
    refused = await shared.worker().claim(len, without={name})
    assert refused.passed_over == [PassedOver(name, "s", "4f2a", "refused")]
    await shared.control.pause()
    assert (await shared.nothing()).passed_over == [PassedOver(name, "s", "4f2a", "paused")]
    await shared.control.resume()
    assert await shared.claim()


@awaited
async def test_runs_of_a_project_take_turns(server: Server) -> None:
    one = await SharedRun.begin(server)
    two = await SharedRun.begin(server, project=one.project, identity={"project": "p", "spider": "s", "arguments": "b"})
    await one.add(*range(4))
    await two.add(*range(4))
    claimed = [await one.claim(1) for _ in range(4)]
    assert [found.run for found in claimed] == [one.name, two.name] * 2


@awaited
async def test_what_was_given_back_goes_out_again_at_once_and_no_attempt_is_used_up(shared: SharedRun) -> None:
    await shared.add(*range(3))
    first = await shared.claim()
    for _ in range(2):  # the answer may be lost
        await shared.worker().give_back(first, "the worker ends")
    again = await shared.claim()
    assert again.bodies == first.bodies
    assert (again.attempt.batch, again.attempt.number, again.batch.failures) == (1, 2, 0)


@pytest.mark.parametrize("order", ["claimed first", "left first"])
@awaited
async def test_what_a_worker_has_claimed_and_not_heard_of_goes_out_again_when_it_leaves(
    shared: SharedRun, order: str
) -> None:
    await shared.nothing("w2")
    await shared.add(1, 2)
    worker = shared.worker()
    args = worker._claim_args(lambda spider: 100, ())
    if order == "left first":  # on another connection, while the claim is on its way
        await worker.forgo()
    kind, *_ = await shared.server.script("claim", shared.intake.keys, *args)
    assert kind == (b"batch" if order == "claimed first" else b"nothing")
    for _ in range(2):  # the answer may be lost
        await worker.leave()
    assert [row.worker for row in (await shared.intake.state()).workers] == ["w2"]
    again = await shared.claim(name="w2")
    assert again.bodies == [body(1), body(2)]
    assert again.batch.failures == 0


@awaited
async def test_a_worker_that_leaves_gives_back_nothing_that_it_has_heard_of(shared: SharedRun) -> None:
    await shared.add(1, 2)
    claimed = await shared.claim()
    await shared.worker().leave()
    assert await shared.counts() == {"diverted": 2, "in_flight": 2}
    assert isinstance(await shared.worker().settle(claimed, receipt(claimed.attempt)), Settlement)


@awaited
async def test_a_batch_whose_lease_has_run_out_goes_to_whoever_claims_next(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    shared = await SharedRun.begin(server, lease_seconds=0.1)
    await shared.add(1, 2)
    first = await shared.claim()
    nothing = await shared.nothing("w2")
    assert nothing.seconds is not None
    assert 0 < nothing.seconds <= 0.1
    await asyncio.sleep(nothing.seconds + 0.01)
    again = await shared.claim(name="w2")
    assert (again.attempt.label, again.batch.failures, again.bodies) == ("1.2", 1, first.bodies)
    said = f"Batch 1 (run {shared.intake.run}): no sign of life on w1 for as long as its lease: {Fate.AGAIN.value}"
    assert said in caplog.text
    assert await shared.worker().renew(first, {}) is None
    assert await shared.counts() == {"diverted": 2, "in_flight": 2}


@awaited
async def test_a_lease_that_is_renewed_does_not_run_out(server: Server) -> None:
    shared = await SharedRun.begin(server, lease_seconds=0.2)
    await shared.add(1)
    claimed = await shared.claim()
    for _ in range(6):
        await asyncio.sleep(0.05)
        assert await shared.worker().renew(claimed, {"settled": 1})
    assert isinstance(await shared.worker("w2").claim(len), Nothing)
    (job,) = await shared.account.jobs()
    assert job.progress == {"settled": 1}


@awaited
async def test_what_has_died_goes_to_another_worker_if_there_is_one(shared: SharedRun) -> None:
    await shared.nothing("w2")
    await shared.add(1)
    await shared.worker().reject(await shared.claim(), "killed", counts=True)
    nothing = await shared.nothing()
    assert nothing.seconds is not None
    assert 50 < nothing.seconds <= 60  # a lease
    assert (await shared.claim(name="w2")).attempt.label == "1.2"


@awaited
async def test_of_all_that_go_out_again_a_worker_gets_the_first_that_is_for_it(shared: SharedRun) -> None:
    await shared.add(*range(41))
    claimed = [(name, await shared.claim(1, name)) for name in ["w1"] * 40 + ["w2"]]
    for name, one in claimed:
        await shared.worker(name).reject(one, "killed", counts=True)
    again = await shared.claim()
    assert (again.attempt.label, again.bodies) == ("41.2", [body(40)])


@awaited
async def test_what_dies_twice_is_halved_until_one_request_is_dead(shared: SharedRun) -> None:
    await shared.add(*range(4))
    fates = []
    for _ in range(20):
        claimed = await shared.worker().claim(lambda spider: 100)
        if isinstance(claimed, Nothing):
            break
        if body(2) in claimed.bodies:
            fates.append(await shared.worker().reject(claimed, "no receipt: killed", counts=True))
        else:
            await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert fates == [Fate.AGAIN, Fate.HALVED, Fate.HALVED, Fate.AGAIN, Fate.DEAD]
    assert await shared.counts() == {"diverted": 4, "crawled": 3, "dead": 1}
    (dead,) = [one async for one in shared.account.outcomes()]
    assert (dead.url, dead.state, dead.reason) == ("http://a/2", "dead", "no receipt: killed")


@awaited
async def test_a_receipt_that_comes_after_the_lease_counts_if_nobody_has_taken_the_batch(shared: SharedRun) -> None:
    await shared.add(1, 2)
    claimed = await shared.claim()
    assert await shared.worker().stage_found(claimed, 0, found_of(7))
    await shared.end_lease(claimed)
    assert isinstance(await shared.worker("w2").claim(len, without={shared.name}), Nothing)
    assert (await shared.intake.state()).again == 1
    settled = await shared.worker().settle(claimed, receipt(claimed.attempt), found=1)
    assert isinstance(settled, Settlement)
    assert await shared.counts() == {"diverted": 3, "queued": 1, "crawled": 2}
    assert (await shared.intake.state()).again == 0
    assert (await shared.claim(name="w2")).bodies == [body(7)]


@awaited
async def test_a_receipt_counts_no_more_when_another_worker_has_the_batch(shared: SharedRun) -> None:
    await shared.add(1, 2)
    first = await shared.claim()
    assert await shared.worker().stage_found(first, 0, found_of(7))
    assert await shared.worker().stage_items(first, 0, b"line\n")
    await shared.end_lease(first)
    second = await shared.claim(name="w2")
    assert await shared.staged() == []
    assert not await shared.worker().stage_items(first, 1, b"line\n")
    for _ in range(2):
        objected = await shared.worker().settle(first, receipt(first.attempt), found=1, lines=1)
        assert isinstance(objected, Objection)
        assert objected.blame is Blame.NOBODY
    assert await shared.worker().reject(first, objected.reason, counts=False) is None
    assert isinstance(await shared.worker("w2").settle(second, receipt(second.attempt)), Settlement)
    assert await shared.counts() == {"diverted": 2, "crawled": 2}


@awaited
async def test_an_attempt_is_settled_by_its_own_token_alone_and_once(shared: SharedRun) -> None:
    await shared.add(1, 2)
    claimed = await shared.claim()
    forged = replace(claimed, attempt=replace(claimed.attempt, token="00000000"))
    objected = await shared.worker().settle(forged, receipt(claimed.attempt))
    assert objected == Objection("it was forgotten before", Blame.NOBODY)
    assert await shared.worker().reject(forged, "killed", counts=True) is None
    assert await shared.worker().renew(forged, {}) is None
    assert not await shared.worker().stage_items(forged, 0, b"line\n")
    answers = [await shared.worker().settle(claimed, receipt(claimed.attempt, 1)) for _ in range(2)]
    assert answers == [Settlement(fate=Fate.AGAIN)] * 2
    assert await shared.counts() == {"diverted": 2, "queued": 1, "crawled": 1}
    assert await shared.worker().reject(claimed, "late", counts=True) is None
    assert await shared.counts() == {"diverted": 2, "queued": 1, "crawled": 1}


@awaited
async def test_a_receipt_that_can_not_count_changes_nothing(shared: SharedRun) -> None:
    await shared.add(1, 2)
    claimed = await shared.claim()
    objected = await shared.worker().settle(claimed, receipt(claimed.attempt, stored=False))
    assert objected == Objection("its feed was not stored", Blame.NODE)
    besides = Objection("its code is another's", Blame.NODE)
    assert await shared.worker().settle(claimed, receipt(claimed.attempt), besides=besides) == besides
    assert await shared.counts() == {"diverted": 2, "in_flight": 2}
    assert await shared.worker().reject(claimed, besides.reason, counts=True, log_tail="Traceback") is Fate.AGAIN
    assert await shared.account.log_tail(1, 1) == "Traceback"


@awaited
async def test_what_was_staged_must_be_there_when_it_is_settled(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().stage_items(claimed, 0, b"line\n")
    with pytest.raises(StagedLostError, match="stage it again"):
        await shared.worker().settle(claimed, receipt(claimed.attempt), lines=2)
    await shared.worker().stage_items(claimed, 1, b"line\n")
    assert isinstance(await shared.worker().settle(claimed, receipt(claimed.attempt), lines=2), Settlement)


@awaited
async def test_what_an_attempt_has_brought_stays_when_the_rest_of_its_batch_goes_out_again(shared: SharedRun) -> None:
    await shared.add(1, 2)
    first = await shared.claim()
    await shared.worker().stage_items(first, 0, b"line\n")
    await shared.worker().settle(first, receipt(first.attempt, 1, items=1), lines=1)
    second = await shared.claim(name="w2")
    assert second.attempt.label == "1.2"
    await shared.worker("w2").settle(second, receipt(second.attempt))
    home = await shared.harvest.first()
    assert home is not None
    assert await shared.harvest.part(home, 0) == b"line\n"


@awaited
async def test_leases_that_run_out_are_dealt_with_once_however_many_workers_see_it(shared: SharedRun) -> None:
    await shared.add(*range(40))
    claimed = [await shared.claim(4) for _ in range(10)]
    names = [f"v{number}" for number in range(4)]
    for turn in range(3):
        for one in claimed:
            await shared.end_lease(one)
        found = await asyncio.gather(*(shared.worker(name).claim(lambda spider: 2) for name in names * 3))
        claimed = [one for one in found if isinstance(one, Claimed)]
        while isinstance(one := await shared.worker(f"w{turn}").claim(lambda spider: 2), Claimed):
            claimed.append(one)
        assert sum((await shared.counts()).values()) == 80
    numbers = [number for one in claimed for number in one.bodies]
    assert len(numbers) == len(set(numbers))


@awaited
async def test_a_coordinator_deals_with_leases_where_no_worker_is_left(shared: SharedRun) -> None:
    await shared.add(1, 2)
    claimed = await shared.claim()
    await shared.control.stop("enough")
    await shared.intake.lose_overdue()
    assert not await shared.ended()
    await shared.end_lease(claimed)
    await shared.intake.lose_overdue()
    assert await shared.ended()
    assert await shared.counts() == {"diverted": 2, "not_crawled": 2}


@awaited
async def test_what_jobs_find_is_added_once_each_also_where_it_is_much(shared: SharedRun) -> None:
    await shared.add(*range(10))
    claimed = await shared.claim()
    for part in range(3):
        numbers = range(part * 900, part * 900 + 1000)
        for _ in range(2):  # the answer may be lost
            assert await shared.worker().stage_found(claimed, part, found_of(*numbers))
    await shared.worker().settle(claimed, receipt(claimed.attempt), found=3)
    assert await shared.counts() == {"diverted": 2800, "duplicates": 210, "queued": 2790, "crawled": 10}
    assert await shared.staged() == []
    assert (await shared.claim(10000)).bodies == [body(number) for number in range(10, 2800)]


@awaited
async def test_finds_that_were_left_are_added_by_the_next_that_has_nothing_to_do(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().stage_found(claimed, 0, found_of(1, 2, 3))

    async def die(run: str) -> None:
        """In place of ``move``."""

    shared.worker().move = die  # type: ignore[method-assign]
    await shared.intake.walked()
    await shared.worker().settle(claimed, receipt(claimed.attempt), found=1)
    assert not await shared.ended()
    assert (await shared.claim(10, "w2")).bodies == [body(2)]  # for two slots
    assert (await shared.intake.state()).moving == 0


@awaited
async def test_failed_requests_are_tried_on_another_worker_once(shared: SharedRun) -> None:
    await shared.nothing("w2")
    await shared.add(1, 2, 3, 4)
    first = await shared.claim(10)
    assert first.others == 1
    failed = receipt(first.attempt, failed={"timeout": [0], "http 404": [1]}, again=0b01)
    assert await shared.worker().settle(first, failed, again=0b11) == Settlement(fate=Fate.SETTLED, again=1)
    second = await shared.claim(name="w2")
    assert (second.bodies, second.batch.avoid) == ([body(1)], "w1")
    failed = receipt(second.attempt, failed={"timeout": [0]}, again=1)
    assert await shared.worker("w2").settle(second, failed, again=1) == Settlement(fate=Fate.SETTLED)
    assert await shared.counts() == {"diverted": 4, "queued": 2, "failed": 2}


@awaited
async def test_cookies_travel_once_and_with_what_names_them(shared: SharedRun) -> None:
    session = encode_session("jar", [])
    entries = [(b"1", with_session(body(1), session.id)), (b"2", body(2))]
    await shared.intake.add(entries, [session])
    claimed = await shared.claim()
    assert f'"sessions":{{"{session.id}":{session.text}}}' in claimed.payload


@awaited
async def test_a_batch_that_is_too_long_for_a_job_is_divided(shared: SharedRun) -> None:
    import random

    letters = random.Random(1)
    bodies = [
        f'"http://a/{number}?{"".join(letters.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=45_000))}"'
        for number in range(8)
    ]
    await shared.intake.add([(text[:20].encode(), text) for text in bodies])
    found: list[str] = []
    while isinstance(claimed := await shared.worker().claim(lambda spider: 100), Claimed):
        assert len(claimed.payload) <= MAX_VALUE_BYTES
        found += claimed.bodies
        await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert sorted(found) == sorted(bodies)
    assert await shared.counts() == {"diverted": 8, "crawled": 8}


@awaited
async def test_a_run_that_is_stopped_gives_nothing_out_and_ends_with_its_last_job(shared: SharedRun) -> None:
    await shared.add(1, 2, 3)
    claimed = await shared.claim(2)
    await shared.control.stop("closespider_itemcount")
    wishes = await shared.worker().renew(claimed, {})
    assert wishes is not None
    assert wishes.stopped == "closespider_itemcount"
    assert [one.why for one in (await shared.nothing()).passed_over] == ["stopped"]
    assert not await shared.ended()
    ended_early = receipt(claimed.attempt, 1, clean=False, items=3, finish_reason="shutdown")
    assert isinstance(await shared.worker().settle(claimed, ended_early), Settlement)
    assert await shared.ended()
    assert await shared.counts() == {"diverted": 3, "crawled": 1, "not_crawled": 2}
    left = [(one.batch, one.url) async for one in shared.account.not_crawled()]
    assert left == [(1, "http://a/2"), (0, "http://a/3")]
    home = await shared.harvest.first()
    assert home is not None
    assert home.last


@awaited
async def test_a_job_may_stop_its_run(shared: SharedRun) -> None:
    await shared.add(1, 2, 3)
    claimed = await shared.claim(2)
    report = receipt(claimed.attempt, 1, clean=False, items=3, finish_reason="enough")
    await shared.worker().settle(claimed, report, stops="enough")
    assert (await shared.intake.state()).stopped == "enough"
    assert await shared.counts() == {"diverted": 3, "crawled": 1, "not_crawled": 2}
