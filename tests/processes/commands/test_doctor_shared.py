"""``scrapy fleet doctor`` for shared runs: what it finds at the server, and of the workers that have joined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from awaiting import run
from scrapy_command import scrapy
from shared_runs import SharedRun
from tiny_project import write_project
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.shared.claims import Claims, Joined
from scrapy_distributed.shared.server import Server


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey(appendonly="yes") as child:
        yield child


@pytest.fixture
def here(tmp_path: Path, child: ValkeyChild) -> Path:
    return project_at(tmp_path, child)


def project_at(tmp_path: Path, child: ValkeyChild, *more: str) -> Path:
    folder = write_project(tmp_path / "project")
    lines = [
        'BOT_NAME = "tiny"', 'SPIDER_MODULES = ["tiny.spiders"]', 'ADDONS = {"scrapy_distributed.Addon": 500}',
        f"DISTRIBUTED_PROJECT = '{tmp_path.name}'", 'DISTRIBUTED_VERSION = "4f2a"',
        f"DISTRIBUTED_TARGET_HOSTS = {[child.url, *more]}",
    ]  # fmt: skip
    (folder / "tiny" / "settings.py").write_text("\n".join(lines))
    return folder


def join(child: ValkeyChild, project: str, **values: object) -> None:
    async def joined() -> None:
        server = await Server.connect(child.address)
        usual = Joined(worker="h:1:ab", host="h", pid=1, slots=3, version="4f2a", spiders=("quick", "waiting"))
        await Claims(server, project, replace(usual, **values)).claim(lambda spider: 1)  # type: ignore[arg-type]
        await server.close()

    run(joined())


def found(folder: Path, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and verdict and words of each check of what is not here."""
    done = scrapy(folder, "fleet", "doctor", "--spider", "quick", "--json", *options)
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, {
        one["check"]: (one["verdict"], one["words"]) for one in checks if one["node"] not in ("here", "local")
    }


def test_all_is_well(child: ValkeyChild, here: Path, tmp_path: Path) -> None:
    join(child, tmp_path.name)
    code, checks = found(here)
    assert code == 0, checks
    assert checks["answers"][0] == "ok"
    assert checks["answers"][1].startswith("Valkey ")
    assert checks["server"][0] == "ok"
    assert checks["workers"] == ("ok", "1 worker with 3 slots can take jobs of quick: h")
    assert checks["settings"] == ("ok", "workers take those of these jobs")
    assert set(checks) == {"answers", "server", "workers", "settings"}


def test_streams_that_take_memory(child: ValkeyChild, here: Path, tmp_path: Path) -> None:
    async def put() -> str:
        server = await Server.connect(child.address)
        shared = await SharedRun.begin(server, project=tmp_path.name)
        for _ in range(3):
            await server.command("XADD", shared.key("items"), "*", "item", "{}")
        await server.close()
        return shared.key("items")

    key = run(put())
    _, checks = found(here)
    words = "3 entries in 1 stream with results, which take memory until their readers trim them, or scrapy batches"
    assert checks["streams"] == ("ok", f"{words} forget RUN: {key}")


def test_settings_of_the_command_that_workers_do_not_take(child: ValkeyChild, here: Path, tmp_path: Path) -> None:
    join(child, tmp_path.name)
    code, checks = found(here, "-s", "IMAGES_STORE=/tmp/images")
    assert code == 1
    assert checks["settings"][0] == "fail"
    assert checks["settings"][1].startswith("workers refuse these jobs: setting IMAGES_STORE")


def test_no_worker_has_joined(child: ValkeyChild, here: Path) -> None:
    code, checks = found(here)
    assert code == 1
    verdict, words = checks["workers"]
    assert verdict == "warn"
    assert f"scrapy worker unix://{child.path}" in words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": "9c1b"}, "found code 9c1b, expected 4f2a as here: bring the same code of the project to h"),
        ({"spiders": ("waiting",)}, "found the spiders waiting, expected quick: start it with --spiders that fit it"),
        ({"state": "benched for 40 s: no memory"}, "benched for 40 s: no memory"),
    ],
    ids=["code", "spider", "state"],
)
def test_a_worker_that_is_not_as_it_should_be(
    child: ValkeyChild, here: Path, tmp_path: Path, values: dict[str, object], words: str
) -> None:
    join(child, tmp_path.name, **values)
    code, checks = found(here)
    assert code == 1
    assert checks["worker"][0] == "warn"
    assert checks["worker"][1].startswith(words)
    assert checks["workers"][0] == ("ok" if "state" in values else "warn")


def test_a_server_that_would_drop_keys_and_keeps_nothing(tmp_path: Path) -> None:
    with valkey(maxmemory_policy="allkeys-lru", maxmemory="100mb") as child:
        done = scrapy(project_at(tmp_path, child), "fleet", "doctor", "--spider", "quick")
    assert done.returncode == 1
    assert "FAIL  server: found maxmemory-policy allkeys-lru, expected noeviction" in done.stdout
    assert "warn  server: found no append-only file" in done.stdout


def test_a_server_that_is_away(child: ValkeyChild, here: Path, tmp_path: Path) -> None:
    code, checks = found(here, f"unix://{tmp_path}/none")
    assert code == 1
    assert set(checks) == {"answers", "settings"}
    assert checks["answers"][0] == "fail"
    assert "can't be used now" in checks["answers"][1]


def test_workers_on_this_machine_beside_it_are_tried(child: ValkeyChild, tmp_path: Path) -> None:
    join(child, tmp_path.name)
    folder = project_at(tmp_path, child, "local:1")
    done = scrapy(folder, "fleet", "doctor", "--spider", "quick")
    assert "local" in done.stdout
    assert "ok    probe" in done.stdout, done.stdout


def test_what_is_of_scrapyds_alone_is_refused(child: ValkeyChild, here: Path) -> None:
    done = scrapy(here, "fleet", "cancel")
    assert (done.returncode, "is ended by scrapy batches cancel" in done.stderr) == (2, True)
    done = scrapy(here, "fleet", "drain", "h")
    assert (done.returncode, "when it is told to end (SIGTERM)" in done.stderr) == (2, True)
    done = scrapy(here, "fleet", "deploy")
    assert (done.returncode, "workers that join shared runs run the project" in done.stdout) == (0, True)
