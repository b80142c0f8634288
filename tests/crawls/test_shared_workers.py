"""Workers that join a run in Redis: real processes, a real Valkey, a real site."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from awaiting import awaited
from cutting_proxy import CuttingProxy
from shop import Shop
from worker_stand import PROJECT, SLOW, eventually, items, over, stand, urls

from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.intake import Intake

LEASE = 3.0


@awaited
async def test_two_workers_crawl_a_run_and_each_page_is_asked_for_once(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 60))
        workers = [here.worker("--slots", "2") for _ in range(2)]
        state = await over(intake)
        assert state.balance.settled, state
        assert (state.balance.diverted, state.balance.crawled, state.items) == (60, 60, 60)
        assert set(own_shop.visits.values()) == {1}
        assert own_shop.requests == 60
        assert all("accepted (finished)" in worker.log for worker in workers), "\n".join(one.log for one in workers)
        assert sorted(await items(here, intake)) == sorted(map(str, range(60)))
        await eventually(lambda: not here.jobs())


@awaited
async def test_what_workers_find_is_crawled_once_wherever_it_was_found(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 1, "tree"))
        worker = here.worker("--slots", "2")
        balance = (await over(intake)).balance
        assert (balance.crawled, balance.settled) == (15, True), worker.log
        assert set(own_shop.visits.values()) == {1}
        assert own_shop.requests == 15


@awaited
async def test_a_worker_stays_for_the_next_run(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.worker("--slots", "1")
        for number in (3, 4):
            assert (await over(await here.begin(urls(own_shop, number, f"run{number}")))).balance.crawled == number
        assert own_shop.requests == 7


@awaited
async def test_one_page_that_kills_its_job_takes_no_other_with_it(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin([*urls(own_shop, 7), *urls(own_shop, 1, "kill")])
        worker = here.worker("--slots", "1")
        balance = (await over(intake)).balance
        assert (balance.crawled, balance.dead, balance.settled) == (7, 1, True), worker.log
        assert sorted(await items(here, intake)) == sorted(map(str, range(7)))
        assert (
            "rejected: no receipt: It was at work, and its log tells no cause: killed, or out of memory?" in worker.log
        )
        assert "its requests go out as two halves" in worker.log
        assert "its attempts are used up, what is left is dead" in worker.log
        assert "come to nothing" not in worker.log, "that is the fault of the batch"
        account = Account(here.server, PROJECT, intake.run)
        assert "Worker of batch 1: 8 requests" in await account.log_tail(1, 1)


@awaited
async def test_what_a_killed_worker_had_is_at_work_elsewhere_soon(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 10), lease=LEASE, **SLOW)
        first = here.worker("--slots", "1")
        await eventually(lambda: own_shop.requests >= 2)
        second = here.worker("--slots", "1")
        await eventually(lambda: "has joined" in second.log)
        os.kill(first.process.pid, signal.SIGKILL)
        killed, before = time.monotonic(), own_shop.requests
        await eventually(lambda: here.jobs_of(second), LEASE + 5)
        assert time.monotonic() - killed > LEASE / 2, "not before the lease of the first one has ended"
        await eventually(lambda: not here.jobs_of(first), 10)
        state = await over(intake)
        assert (state.balance.crawled, state.balance.settled) == (10, True), state
        assert sorted(await items(here, intake)) == sorted(map(str, range(10)))
        assert before >= 2


@awaited
async def test_what_a_worker_has_that_stood_still_for_longer_than_its_lease_does_not_count(
    own_shop: Shop, tmp_path: Path
) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 10), lease=LEASE, **SLOW)
        first = here.worker("--slots", "1")
        await eventually(lambda: own_shop.requests >= 2)
        os.kill(first.process.pid, signal.SIGSTOP)
        second = here.worker("--slots", "1")
        await eventually(lambda: here.jobs_of(second), LEASE + 10)
        os.kill(first.process.pid, signal.SIGCONT)
        await eventually(lambda: "its lease is lost" in first.log or "rejected" in first.log)
        await eventually(lambda: not here.jobs_of(first))
        state = await over(intake)
        assert (state.balance.crawled, state.items, state.balance.settled) == (10, 10, True), state
        assert sorted(await items(here, intake)) == sorted(map(str, range(10)))
        assert first.process.poll() is None, "it goes on"


@awaited
async def test_a_worker_that_is_told_to_end_settles_what_is_done_and_the_rest_goes_out_again(
    own_shop: Shop, tmp_path: Path
) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 10), **SLOW)
        first = here.worker("--slots", "1")
        await eventually(lambda: own_shop.requests >= 3)
        os.kill(first.process.pid, signal.SIGTERM)
        began = time.monotonic()
        await eventually(lambda: first.process.poll() is not None)
        assert time.monotonic() - began < 10
        assert first.process.returncode == 0, first.log
        assert "Told to end, with 1 job under way" in first.log
        assert "accepted (shutdown)" in first.log
        assert not here.jobs()
        balance = (await intake.state()).balance
        assert 2 <= balance.crawled < 10
        assert (balance.in_flight, balance.queued) == (0, 10 - balance.crawled), "nothing waits for a lease"
        here.worker("--slots", "1")
        assert (await over(intake)).balance.crawled == 10
        assert sorted(await items(here, intake)) == sorted(map(str, range(10)))


@awaited
async def test_what_has_not_begun_is_given_back_at_once(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        first = here.worker("--slots", "1")
        await eventually(lambda: "has joined" in first.log)
        intake = await here.begin(urls(own_shop, 4))
        await eventually(lambda: in_flight(intake), 10)
        os.kill(first.process.pid, signal.SIGTERM)
        began = time.monotonic()

        async def given_back() -> bool:
            balance = (await intake.state()).balance
            return not balance.in_flight

        await eventually(given_back)
        assert time.monotonic() - began < 2, first.log
        await eventually(lambda: first.process.poll() is not None)
        here.worker("--slots", "1")
        assert (await over(intake)).balance.crawled == 4


@awaited
async def test_what_a_worker_has_not_heard_of_when_it_is_told_to_end_is_at_work_elsewhere_at_once(
    own_shop: Shop, tmp_path: Path
) -> None:
    async with stand(tmp_path) as here, CuttingProxy(tmp_path / "p", here.valkey.path) as proxy:
        first = here.worker("--slots", "1", at=f"unix://{proxy.path}")
        await eventually(lambda: "has joined" in first.log)
        proxy.keep = b"$5\r\nbatch\r\n"
        intake = await here.begin(urls(own_shop, 4), lease=3600)
        await eventually(lambda: in_flight(intake))
        os.kill(first.process.pid, signal.SIGTERM)
        await eventually(lambda: first.process.poll() is not None)
        assert first.process.returncode == 0, first.log
        here.worker("--slots", "1")
        assert (await over(intake)).balance.crawled == 4


async def in_flight(intake: Intake) -> bool:
    return bool((await intake.state()).balance.in_flight)


@awaited
async def test_told_twice_it_ends_at_once(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        own_shop.hold("/none")
        await here.begin(urls(own_shop, 4))
        worker = here.worker("--slots", "1")
        await eventually(lambda: own_shop.requests >= 1)
        os.kill(worker.process.pid, signal.SIGINT)
        await eventually(lambda: "Told to end" in worker.log)
        os.kill(worker.process.pid, signal.SIGINT)
        began = time.monotonic()
        await eventually(lambda: worker.process.poll() is not None)
        assert time.monotonic() - began < 5
        assert not here.jobs()


@awaited
async def test_while_redis_is_away_a_worker_goes_on(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path, appendonly="yes", appendfsync="always") as here:
        intake = await here.begin(urls(own_shop, 10), lease=60, **SLOW)
        worker = here.worker("--slots", "1")
        await eventually(lambda: own_shop.requests >= 2)
        here.valkey.kill()
        await eventually(lambda: own_shop.requests >= 10)
        await eventually(lambda: "can't be used now" in worker.log)
        here.valkey.start()
        state = await over(intake)
        assert (state.balance.crawled, state.items) == (10, 10)
        assert own_shop.requests == 10, worker.log
        await eventually(lambda: "Redis can be used again, after" in worker.log)
        assert worker.log.count("can't be used now") == 1


@awaited
async def test_jobs_of_a_run_that_is_stopped_end_early_and_what_they_have_done_counts(
    own_shop: Shop, tmp_path: Path
) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 30), **SLOW)
        worker = here.worker("--slots", "2")
        await eventually(lambda: own_shop.requests >= 4)
        await Control(here.server, PROJECT, intake.run).stop("closespider_timeout")
        balance = (await over(intake, 20)).balance
        assert (balance.settled, balance.queued, balance.in_flight) == (True, 0, 0)
        assert 3 <= balance.crawled == 30 - balance.not_crawled < 30, worker.log
        assert len(await items(here, intake)) == balance.crawled
        assert "rejected" not in worker.log


@awaited
async def test_a_limit_that_a_job_reaches_ends_the_run(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 30), CLOSESPIDER_ITEMCOUNT="3", CONCURRENT_REQUESTS="1")
        here.worker("--slots", "1")
        state = await over(intake)
        assert (state.stopped, state.balance.settled) == ("closespider_itemcount", True)
        assert 3 <= state.balance.crawled < 10


@awaited
async def test_workers_of_one_project_share_a_folder_of_logs(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        logs = tmp_path / "logs"
        workers = [here.worker("--slots", "1", "--logs", str(logs)) for _ in range(2)]
        await eventually(lambda: all("has joined" in worker.log for worker in workers))
        assert (await over(await here.begin(urls(own_shop, 20)))).balance.crawled == 20
        assert all(list((logs / number / "logs").glob("*.log")) for number in "12")
        await eventually(lambda: not list(logs.rglob("*.items")))  # they have come home


@awaited
async def test_a_worker_ends_in_time_also_where_redis_does_not_answer(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        await here.begin(urls(own_shop, 10), **SLOW)
        worker = here.worker("--slots", "1", "-s", "DISTRIBUTED_SHUTDOWN_TIMEOUT=3")
        await eventually(lambda: own_shop.requests >= 2)
        os.kill(here.valkey.pid, signal.SIGSTOP)
        try:
            os.kill(worker.process.pid, signal.SIGTERM)
            began = time.monotonic()
            await eventually(lambda: worker.process.poll() is not None, told=lambda: worker.log)
            assert 3 < time.monotonic() - began < 8
        finally:
            os.kill(here.valkey.pid, signal.SIGCONT)
        assert worker.process.returncode == 0
        assert "1 job not over in time: ended, and what they had goes out again later" in worker.log
        assert "Traceback" not in worker.log
        assert not here.jobs()


@awaited
async def test_a_worker_that_is_started_before_its_redis_waits_for_it(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.valkey.kill()
        first, second = here.worker("--slots", "1"), here.worker("--slots", "1")
        await eventually(lambda: all("can't be used now" in worker.log for worker in (first, second)))
        os.kill(first.process.pid, signal.SIGTERM)
        await eventually(lambda: first.process.poll() is not None)
        assert "Traceback" not in first.log
        here.valkey.start()
        assert (await over(await here.begin(urls(own_shop, 3)))).balance.crawled == 3
        assert second.process.poll() is None


@awaited
async def test_a_job_that_stands_still_is_told_to_end(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        own_shop.hold("/none?n=3")
        intake = await here.begin(urls(own_shop, 6), stall=2.0, CONCURRENT_REQUESTS="1")
        worker = here.worker("--slots", "1")
        stalled = re.compile(r"its job has done nothing for \d+ s \(DISTRIBUTED_STALL\): it is ended")
        await eventually(lambda: stalled.search(worker.log), told=lambda: worker.log)
        own_shop.release()
        assert (await over(intake)).balance.crawled == 6
        assert "accepted (shutdown)" in worker.log, worker.log


@awaited
async def test_jobs_write_the_feeds_that_the_project_here_names_as_well(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        feed = str(tmp_path / "items" / "%(batch)s.jl")
        settings = {"FEED_URI": feed, "DISTRIBUTED_ITEMS": "auto"}
        stranger = here.worker("--slots", "1")
        await eventually(lambda: "has joined" in stranger.log)
        intake = await here.begin(urls(own_shop, 6), **settings)
        await eventually(lambda: "is passed over by this worker: setting FEED_URI" in stranger.log)
        here.add_setting(f'DISTRIBUTED_TARGET_FEED_URL = "{feed}"')
        here.worker("--slots", "1")
        assert (await over(intake)).balance.crawled == 6
        lines = [line for file in (tmp_path / "items").iterdir() for line in file.read_text().splitlines()]
        assert len(lines) == 6


@awaited
async def test_a_machine_whose_jobs_come_to_nothing_stands_aside(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 6), lease=LEASE)
        bad = here.worker("--slots", "1", BROKEN="1")
        await eventually(lambda: "The jobs of this worker come to nothing" in bad.log, told=lambda: bad.log)
        assert "a library that this machine lacks; it takes nothing for 5 s" in bad.log

        async def state() -> str:
            return "".join(row.state for row in (await intake.state()).workers)

        for what in ("benched for", "on trial: its jobs came to nothing"):
            await eventually(lambda what=what: shown(state, what))
        here.worker("--slots", "1")
        assert (await over(intake)).balance.crawled == 6


async def shown(state: Callable[[], Awaitable[str]], words: str) -> bool:
    return words in await state()


@awaited
async def test_settings_that_name_files_of_the_machine_are_refused(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        bad = await here.begin(urls(own_shop, 2, "bad"), LOG_FILE="/tmp/x")
        worker = here.worker("--slots", "1")
        good = await here.begin(urls(own_shop, 3, "good"))
        assert (await over(good)).balance.crawled == 3
        await eventually(lambda: "is passed over by this worker: setting LOG_FILE: found '/tmp/x'" in worker.log)
        balance = (await bad.state()).balance
        assert (balance.queued, balance.in_flight) == (2, 0)
        assert own_shop.requests == 3
        assert worker.log.count("is passed over") == 1


@awaited
async def test_a_run_of_other_code_is_passed_over_and_that_is_told(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        intake = await here.begin(urls(own_shop, 2), version="v2")
        worker = here.worker("--slots", "1")
        await eventually(lambda: "its code is version v2, and this worker has v1" in worker.log)
        assert (await intake.state()).balance.queued == 2


@awaited
async def test_a_worker_whose_code_has_changed_ends_to_be_started_again(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.with_digest()
        worker = here.worker("--slots", "1")
        await eventually(lambda: "has joined" in worker.log)
        with (here.project / "tiny" / "spiders.py").open("a") as file:
            file.write("# one line more\n")
        await eventually(lambda: worker.process.poll() is not None, 15)
        assert worker.process.returncode == 75, worker.log
        assert "The code of this project has changed on disk" in worker.log


@awaited
async def test_it_shows_that_it_lives(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        file = tmp_path / "alive"
        worker = here.worker("--slots", "1", "--health", str(file))
        await eventually(file.exists)
        os.utime(file, (0, 0))
        await eventually(lambda: file.stat().st_mtime > 0)
        os.kill(worker.process.pid, signal.SIGTERM)
        await eventually(lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 0, worker.log


@awaited
async def test_what_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        for options, words in (
            (("--health", "0"), "--health: found port 0, expected 1 to 65535"),
            (("--spiders", "x*"), "--spiders: found 'x*', which is the name of no spider here"),
            (("redis://other",), "found 2 of them, expected one address"),
        ):
            worker = here.worker(*options)
            await eventually(lambda worker=worker: worker.process.poll() is not None)
            assert (worker.process.returncode, words in worker.log) == (2, True), worker.log
        (here.project / "scrapy.cfg").unlink()
        worker = here.worker()
        await eventually(lambda: worker.process.poll() is not None)
        assert worker.process.returncode == 2
        assert "scrapy worker: found no project here, expected the folder of one, with its scrapy.cfg" in worker.log
