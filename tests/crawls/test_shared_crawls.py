"""Shared runs: a crawl whose requests go into a Valkey, and workers that join it, on real processes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from certificate import make
from crawling import FAKES, Crawl, Project, wait_for
from homing import Home, complaints, content, items
from joined_crawls import join, said
from late_imports import late_imports, told_in
from shop import PRODUCTS, Shop
from tls_proxy import tls_proxy
from valkey_child import ValkeyChild, valkey

EACH_ONCE = Counter(str(number) for number in range(PRODUCTS))
NOBODY = "No worker has joined"


def start(
    here: Home, queue: ValkeyChild, folder: Path, spider: str = "plain_dict", *options: str, **settings: Any
) -> Crawl:
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, **settings}
    return here.crawl(spider, "-O", str(folder / "out.jl"), *options, folder=folder, settings=given)


def products(folder: Path) -> Counter[str]:
    return Counter(str(item["number"]) for item in items(folder / "out.jl"))


def complaints_of(crawl: Crawl) -> list[str]:
    return [line for line in complaints(crawl) if NOBODY not in line]


# All is well


def test_what_workers_that_join_have_scraped_is_what_a_local_crawl_gives(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    workers = [join(here, queue, tmp_path / name, "--slots", "2") for name in ("one", "two")]
    crawl = start(here, queue, tmp_path).wait()
    assert crawl.process.returncode == 0, crawl.log + workers[0].log
    alone = here.crawl(
        "plain_dict", "-O", str(tmp_path / "alone" / "out.jl"), folder=tmp_path / "alone",
        settings={"DISTRIBUTED_ENABLED": False},
    ).wait()  # fmt: skip
    assert alone.process.returncode == 0
    assert content(tmp_path / "out.jl") == content(tmp_path / "alone" / "out.jl")
    assert complaints_of(crawl) == []
    assert crawl.stat("distributed/diverted") == crawl.stat("distributed/crawled") == PRODUCTS
    assert crawl.stat("distributed/workers/item_scraped_count") == PRODUCTS
    assert here.shop.visits["/p/0"] == 2  # by the one and by the other


def test_what_jobs_have_done_is_counted_before_they_are_over(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/p/3")
    worker = join(here, queue, tmp_path / "worker", "--slots", "1")
    crawl = start(here, queue, tmp_path, LOGSTATS_INTERVAL=1)
    wait_for(lambda: re.search(r"Fleet: ([5-9]|1\d) of 12 requests settled .*, [5-9] items", crawl.log))
    assert "accepted" not in worker.log
    here.shop.release()
    assert crawl.wait().process.returncode == 0, crawl.log


def test_a_job_imports_nothing_but_its_project(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker", "--slots", "1")
    start(here, queue, tmp_path, "imports", DISTRIBUTED_BATCH_SIZE=PRODUCTS).wait()
    log = next((tmp_path / "worker" / "jobs").rglob("*.log"))
    assert late_imports(told_in(log.read_text())) == {"twisted.internet.reactor"}


def test_the_next_command_begins_a_new_run(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker")
    for _ in range(2):
        crawl = start(here, queue, tmp_path).wait()
        assert crawl.process.returncode == 0, crawl.log
        assert products(tmp_path) == EACH_ONCE
        assert "taken up again" not in crawl.log
    assert here.shop.visits["/p/0"] == 2
    (kept,) = tmp_path.glob("ledger.sqlite.items/*/home.journal")  # those of the earlier run are gone
    assert kept.parent.name in crawl.log


def test_a_worker_on_this_machine_joins_for_as_long_as_the_crawl_takes(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    crawl = start(here, queue, tmp_path, DISTRIBUTED_TARGET_HOSTS=f"{queue.url},local:2").wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == EACH_ONCE
    assert "1 worker (2 slots) has joined" in crawl.log
    log = (tmp_path / "ledger.sqlite.worker.log").read_text()
    assert "accepted" in log
    assert not _processes_of(tmp_path)


def test_a_worker_on_this_machine_ends_also_where_its_crawl_is_killed(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    crawl = start(here, queue, tmp_path, DISTRIBUTED_TARGET_HOSTS=f"{queue.url},local:2")
    said(crawl, "has joined")
    os.kill(crawl.process.pid, signal.SIGKILL)
    crawl.process.wait()
    wait_for(lambda: not _processes_of(tmp_path))


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if str(folder) in os.readlink(entry):
                found.append(str(entry))
        except OSError:
            continue
    return found


def test_a_crawl_that_finds_nothing_for_workers_ends_at_once(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    crawl = start(here, queue, tmp_path, "plain_dict", "-a", f"site={here.shop.url}/none?of=").wait()
    assert crawl.process.returncode == 0, crawl.log
    assert "Nothing was diverted" in crawl.log
    assert (tmp_path / "out.jl").read_text() == ""


def test_what_workers_find_goes_to_workers(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "one", "--slots", "2")
    crawl = start(here, queue, tmp_path, "groups").wait()
    assert crawl.process.returncode == 0, crawl.log
    alone = here.crawl(
        "groups", "-O", str(tmp_path / "alone" / "out.jl"), folder=tmp_path / "alone",
        settings={"DISTRIBUTED_ENABLED": False},
    ).wait()  # fmt: skip
    assert alone.process.returncode == 0
    assert content(tmp_path / "out.jl") == content(tmp_path / "alone" / "out.jl")


# Early ends, and how it goes on


def test_ctrl_c_leaves_the_run_to_its_workers_and_the_same_command_writes_the_result(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    crawl = start(here, queue, tmp_path)
    wait_for(lambda: here.shop.visits["/list/1"])
    said(crawl, NOBODY)
    os.kill(crawl.process.pid, signal.SIGINT)
    crawl.wait()
    assert crawl.process.returncode == 1
    assert f"is not finished (shutdown): {PRODUCTS} requests queued" in crawl.log
    assert "the same command takes it up again" in crawl.log
    worker = join(here, queue, tmp_path / "worker")
    wait_for(lambda: worker.log.count("accepted (finished)") >= 1)
    again = start(here, queue, tmp_path).wait()
    assert again.process.returncode == 0, again.log
    assert "taken up again" in again.log
    assert products(tmp_path) == EACH_ONCE
    assert here.shop.visits["/p/0"] == 1


def test_a_crawl_that_is_killed_is_taken_up_again(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/list/1")
    crawl = start(here, queue, tmp_path)
    wait_for(lambda: here.shop.visits["/list/1"])
    os.kill(crawl.process.pid, signal.SIGKILL)
    crawl.process.wait()
    here.shop.release()
    join(here, queue, tmp_path / "worker")
    again = start(here, queue, tmp_path).wait()
    assert again.process.returncode == 0, again.log
    assert "taken up again" in again.log
    assert products(tmp_path) == EACH_ONCE
    assert max(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) == 1


def test_what_was_settled_while_no_coordinator_was_there_comes_home_without_a_walk(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/p/")
    crawl = start(here, queue, tmp_path)
    worker = join(here, queue, tmp_path / "worker")
    wait_for(lambda: here.shop.visits["/p/0"])
    os.kill(crawl.process.pid, signal.SIGKILL)
    crawl.process.wait()
    here.shop.release()
    wait_for(lambda: sum(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) == PRODUCTS)
    again = start(here, queue, tmp_path).wait()
    assert again.process.returncode == 0, again.log + worker.log
    assert products(tmp_path) == EACH_ONCE
    assert max(here.shop.visits[f"/p/{number}"] for number in range(PRODUCTS)) == 1


def test_what_was_scraped_here_is_in_the_result_of_a_later_command_too(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    crawl = start(here, queue, tmp_path, "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    said(crawl, NOBODY)
    wait_for(lambda: len(list(tmp_path.glob("ledger.sqlite.items/*/own-1.jl"))))
    time.sleep(1.5)  # until its own crawl is done
    os.kill(crawl.process.pid, signal.SIGINT)
    crawl.wait()
    join(here, queue, tmp_path / "worker")
    again = start(here, queue, tmp_path, "here").wait()
    assert again.process.returncode == 0, again.log
    assert "the coordinator's own crawl is done" in again.log
    assert here.shop.visits["/list/0"] == 1
    alone = here.crawl(
        "here", "-O", str(tmp_path / "alone" / "out.jl"), folder=tmp_path / "alone",
        settings={"DISTRIBUTED_ENABLED": False},
    ).wait()  # fmt: skip
    assert alone.process.returncode == 0
    assert content(tmp_path / "out.jl") == content(tmp_path / "alone" / "out.jl")


def test_what_was_scraped_here_is_in_the_result_also_where_the_run_is_stopped_and_the_crawl_killed(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    """What it had found last may be missing, and that is told."""
    here.shop.hold("/list/1")
    crawl = start(here, queue, tmp_path, "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    wait_for(lambda: b'{"own": {"own-1.jl": [3,' in _journal(tmp_path))
    crawl.process.send_signal(signal.SIGSTOP)  # it hears of nothing any more
    cancel = here.project.scrapy("batches", "cancel", "--ledger", queue.url, folder=tmp_path).wait()
    assert cancel.process.returncode == 0, cancel.log
    crawl.process.kill()
    crawl.process.wait()
    here.shop.release()
    again = start(here, queue, tmp_path, "here").wait()
    assert again.process.returncode == 1, again.log
    assert "is over, it was stopped (" in again.log
    assert "cut off before all that was found was added: 1" in again.log
    assert [item["place"] for item in items(tmp_path / "out.jl")] == ["start", "end of start", "list"]


def _journal(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("ledger.sqlite.items/*/home.journal"))


def test_a_feed_that_is_not_stored_is_written_by_the_same_command(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    join(here, queue, tmp_path / "worker")
    (place := tmp_path / "there").mkdir()
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url}
    here.shop.hold("/p/")
    crawl = here.crawl("plain_dict", "-O", f"kept://{place}/out.jl", folder=tmp_path, settings=given)
    wait_for(lambda: here.shop.visits["/p/0"])
    place.rmdir()
    place.write_text("no folder")
    here.shop.release()
    crawl.wait()
    assert crawl.process.returncode == 1, crawl.log
    assert "is not finished: a feed lacks items" in crawl.log
    place.unlink()
    place.mkdir()
    visits = dict(here.shop.visits)
    again = here.crawl("plain_dict", "-O", f"kept://{place}/out.jl", folder=tmp_path, settings=given).wait()
    assert again.process.returncode == 0, again.log
    assert sorted(item["number"] for item in items(place / "out.jl.kept")) == list(range(PRODUCTS))
    assert dict(here.shop.visits) == visits


def test_a_limit_of_pages_ends_the_walk_and_what_it_has_found_is_crawled(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    join(here, queue, tmp_path / "worker")
    crawl = start(here, queue, tmp_path, "plain_dict", "-s", "CLOSESPIDER_PAGECOUNT=1").wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == Counter(str(number) for number in range(6))


def test_a_limit_ends_the_run(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker", "--slots", "1")
    crawl = start(here, queue, tmp_path, "plain_dict", "-s", "CLOSESPIDER_ITEMCOUNT=3").wait()
    assert "is over, it was stopped (closespider_itemcount)" in crawl.log, crawl.log
    assert crawl.process.returncode == 0, crawl.log
    assert 3 <= products(tmp_path).total() < PRODUCTS
    assert crawl.stat("distributed/not_crawled")
    assert crawl.stat("distributed/difference") == 0


# Two coordinators


def test_a_second_coordinator_waits_and_ends_with_the_run(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/p/")
    first = start(here, queue, tmp_path / "first")
    said(first, "Run ")
    second = start(here, queue, tmp_path / "second")
    said(second, f"items come home to {os.uname().nodename}:{tmp_path / 'first'}")
    assert "can't take over if that one dies: the same command there does" in second.log
    join(here, queue, tmp_path / "worker")
    here.shop.release()
    first.wait()
    second.wait()
    assert first.process.returncode == second.process.returncode == 0, second.log
    assert products(tmp_path / "first") == EACH_ONCE
    assert "its result is written by the other coordinator" in second.log
    assert not (tmp_path / "second" / "out.jl").exists()
    assert here.shop.visits["/list/0"] == 1


def test_a_second_coordinator_that_waits_can_be_interrupted(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/list/1")
    first = start(here, queue, tmp_path)
    wait_for(lambda: here.shop.visits["/list/1"])
    second = start(here, queue, tmp_path)
    said(second, "waits: another coordinator uses ")
    os.kill(second.process.pid, signal.SIGINT)
    second.wait()
    assert second.process.returncode == 1
    assert "Traceback" not in second.log
    other = start(here, queue, tmp_path, "item_fields").wait()
    assert "another coordinator uses it: let that one end" in other.log
    here.shop.release()
    join(here, queue, tmp_path / "worker")
    first.wait()
    assert first.process.returncode == 0, first.log
    assert products(tmp_path) == EACH_ONCE


def test_a_second_coordinator_takes_the_walk_over_when_the_first_one_dies(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/list/1")
    first = start(here, queue, tmp_path)
    wait_for(lambda: here.shop.visits["/list/1"])
    second = start(here, queue, tmp_path)
    said(second, "waits: another coordinator uses ")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    here.shop.release()
    join(here, queue, tmp_path / "worker")
    second.wait()
    assert second.process.returncode == 0, second.log
    assert products(tmp_path) == EACH_ONCE
    assert here.shop.visits["/list/0"] == 2
    assert second.stat("distributed/duplicates")


def test_a_run_that_is_begun_anew_leaves_the_first_one_to_its_coordinator_which_says_so(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    first = start(here, queue, tmp_path / "first")
    said(first, NOBODY)
    in_its_folder = start(here, queue, tmp_path / "first", DISTRIBUTED_RESUME=False).wait()
    assert "another coordinator uses it: let that one end" in in_its_folder.log
    second = start(here, queue, tmp_path / "second", DISTRIBUTED_RESUME=False)
    first.wait()
    assert first.process.returncode == 1
    assert "Another command has begun this crawl anew" in first.log
    assert "Task was destroyed" not in first.log
    join(here, queue, tmp_path / "worker")
    second.wait()
    assert second.process.returncode == 0, second.log
    assert products(tmp_path / "second") == EACH_ONCE


def test_items_come_home_to_one_folder(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    crawl = start(here, queue, tmp_path / "here")
    wait_for(lambda: here.shop.visits["/list/1"])
    said(crawl, NOBODY)
    os.kill(crawl.process.pid, signal.SIGINT)
    crawl.wait()
    elsewhere = start(here, queue, tmp_path / "elsewhere").wait()
    assert elsewhere.process.returncode == 1
    assert f"come home to {os.uname().nodename}:{tmp_path / 'here'}" in elsewhere.log, elsewhere.log
    assert "its walk is another coordinator's" not in elsewhere.log
    assert not (tmp_path / "elsewhere" / "out.jl").exists()
    join(here, queue, tmp_path / "worker")
    anew = start(here, queue, tmp_path / "elsewhere", DISTRIBUTED_RESUME=False).wait()
    assert anew.process.returncode == 0, anew.log
    assert products(tmp_path / "elsewhere") == EACH_ONCE


# Where items do not come home


def test_workers_write_feeds_of_their_own(
    queue: ValkeyChild, own_shop: Shop, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where they write is a matter of their own project: a file that the run names they refuse."""
    project = Project(tmp_path_factory.mktemp("feeds"), {}, settings="trial.home_settings", name="home")
    feed = f"file://{tmp_path}/items/%(batch)s.jl"
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "DISTRIBUTED_TARGET_FEED_URL": feed}
    here = Home(project, own_shop)
    try:
        refused = here.crawl("plain_dict", folder=tmp_path / "refused", settings=given).wait()
        assert refused.process.returncode == 1
        assert "workers refuse the jobs of this run: setting FEED_URI: found 'file://" in refused.log
        with (project.folder / "trial" / "home_settings.py").open("a") as settings:
            settings.write(f"DISTRIBUTED_TARGET_FEED_URL = {feed!r}\n")
        join(here, queue, tmp_path / "worker")
        crawl = here.crawl("plain_dict", folder=tmp_path, settings=given).wait()
    finally:
        project.end()
    assert crawl.process.returncode == 0, crawl.log
    found = [item["number"] for path in (tmp_path / "items").iterdir() for item in items(path)]
    assert sorted(found) == list(range(PRODUCTS))


def test_items_may_end_with_the_pipelines_of_workers(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker")
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "DISTRIBUTED_ITEMS": "none"}
    crawl = here.crawl("plain_dict", folder=tmp_path, settings=given).wait()
    assert crawl.process.returncode == 0, crawl.log
    assert crawl.stat("distributed/workers/item_scraped_count") == PRODUCTS


# Trouble


def test_workers_with_other_code_get_nothing_and_that_is_said(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    other = join(here, queue, tmp_path / "other", "-s", "DISTRIBUTED_VERSION=other")
    said(other, "has joined project")
    crawl = start(here, queue, tmp_path)
    said(crawl, "has code other, the run ")
    said(crawl, "No worker has joined that can take jobs of this run")
    join(here, queue, tmp_path / "worker")
    crawl.wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == EACH_ONCE


def test_a_spider_that_closes_itself_in_a_job_ends_the_run(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    join(here, queue, tmp_path / "worker", "--slots", "1")
    crawl = start(here, queue, tmp_path, "enough").wait()
    assert "The spider has closed itself on " in crawl.log, crawl.log
    assert "is over, it was stopped (" in crawl.log
    assert crawl.process.returncode == 0
    assert crawl.stat("distributed/difference") == 0


def test_without_the_package_it_is_said_what_to_install(here: Home, tmp_path: Path) -> None:
    crawl = here.project.scrapy(
        "crawl", "plain_dict", "-a", f"site={here.shop.url}", "-s", "DISTRIBUTED_TARGET_HOSTS=redis://127.0.0.1:1/0",
        folder=tmp_path, PYTHONPATH=str(FAKES / "no_redis"),
    ).wait()  # fmt: skip
    assert crawl.process.returncode == 1
    assert "pip install 'scrapy-distributed-batches[redis]'" in crawl.log
    assert "Traceback" not in crawl.log


def test_nothing_is_lost_while_the_server_is_away(here: Home, queue: ValkeyChild, tmp_path: Path) -> None:
    here.shop.hold("/list/1", "/p/")
    crawl = start(here, queue, tmp_path)
    join(here, queue, tmp_path / "worker")
    wait_for(lambda: here.shop.visits["/p/0"])
    queue.kill()
    here.shop.release()
    said(crawl, "can't be used now")
    queue.start()
    crawl.wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path) == EACH_ONCE
    assert crawl.log.count("can't be used now") == 1
    assert "answers again" in crawl.log


def test_a_late_page_is_not_asked_for_before_the_server_knows_that_the_walk_goes_on(
    here: Home, queue: ValkeyChild, tmp_path: Path
) -> None:
    here.shop.hold("/p/", "/list/1")
    mark = tmp_path / "late"
    crawl = start(here, queue, tmp_path, "late_page", "-a", f"mark={mark}")
    worker = join(here, queue, tmp_path / "worker")

    def walked() -> bytes:
        name = re.findall(r"Run (\S+) of project (\w+)", crawl.log)
        return queue.ask("HGET", f"{{sd:{name[0][1]}}}:{name[0][0]}", "walked") if name else b""

    wait_for(walked)
    queue.kill()
    mark.touch()
    said(crawl, "The late page is given")
    queue.start()
    wait_for(lambda: here.shop.visits["/list/1"])
    assert queue.ask("PING")
    assert not walked()
    crawl.process.kill()
    crawl.process.wait()
    here.shop.release()
    again = start(here, queue, tmp_path, "late_page", "-a", f"mark={mark}").wait()
    assert again.process.returncode == 0, again.log + worker.log
    assert "own crawl is done" not in again.log
    assert products(tmp_path) == Counter(map(str, range(12)))


def test_a_crawl_over_tls_where_each_side_has_a_certificate_and_the_environment_user_and_password(
    here: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, known = make(tmp_path)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    users = tmp_path / "users.acl"
    users.write_text("user default off\nuser bob on >s3cret ~{sd:* +@all -@admin\n")
    for name, value in (("USERNAME", "bob"), ("PASSWORD", "s3cret"), ("CERTIFICATE", own)):
        monkeypatch.setenv(f"DISTRIBUTED_REDIS_{name}", str(value))
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    with valkey(aclfile=str(users)) as queue, tls_proxy(queue.path, own, known=known) as port:
        url = f"rediss://localhost:{port}/0"
        worker = join(here, queue, tmp_path / "worker", at=url)
        crawl = start(here, queue, tmp_path, DISTRIBUTED_TARGET_HOSTS=url).wait()
        assert crawl.process.returncode == 0, crawl.log + worker.log
        assert products(tmp_path) == EACH_ONCE
        assert "s3cret" not in crawl.log + worker.log
        monkeypatch.setenv("SSL_CERT_FILE", str(make(elsewhere)[1]))
        for stranger, code in (
            (join(here, queue, tmp_path / "stranger", at=url), 2),
            (here.project.scrapy("batches", "list", "--ledger", url, folder=elsewhere), 2),
            (start(here, queue, elsewhere, DISTRIBUTED_TARGET_HOSTS=url), 1),
        ):
            assert stranger.wait().process.returncode == code, stranger.log
            (line,) = [line for line in stranger.log.splitlines() if "certificate verify failed" in line]
            assert "SSL_CERT_FILE=/path/ca.pem" in line
            assert "Traceback" not in stranger.log


def test_a_wrong_password_is_one_clear_line(here: Home, tmp_path: Path) -> None:
    with valkey(requirepass="right") as queue:
        crawl = start(here, queue, tmp_path).wait()
    assert crawl.process.returncode == 1
    (line,) = [line for line in crawl.log.splitlines() if "The crawl does not start" in line]
    assert "refuses us" in line
    assert "password" in line
    assert "Traceback" not in crawl.log


def test_a_server_that_would_drop_keys_is_refused(here: Home, tmp_path: Path) -> None:
    with valkey(maxmemory_policy="allkeys-lru") as queue:
        crawl = start(here, queue, tmp_path).wait()
    assert crawl.process.returncode == 1
    assert "found maxmemory-policy allkeys-lru, expected noeviction" in crawl.log


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("redis://queue:6379/0,scrapyd1:6800", "found scrapyd1:6800 beside a Redis"),
        ("redis://queue:6379/0,redis://other:6379/0", "found 2 entries for a Redis, expected one"),
        ("redis://:secret@queue:x/0", "expected redis://host:6379/0"),
    ],
)
def test_what_a_shared_run_can_not_be_is_refused(here: Home, tmp_path: Path, hosts: str, words: str) -> None:
    crawl = here.crawl("plain_dict", folder=tmp_path, settings={"DISTRIBUTED_TARGET_HOSTS": hosts}).wait()
    assert crawl.process.returncode == 1
    assert words in crawl.log
    assert "secret" not in crawl.log.replace("-s", "")
