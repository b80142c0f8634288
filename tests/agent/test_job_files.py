"""The files of jobs on this machine: what is kept, and for how long."""

from __future__ import annotations

import os
from pathlib import Path

from scrapy_distributed.agent.job_files import KEPT, JobFiles
from scrapy_distributed.wire.hold import hold, lock_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def begin(files: JobFiles, job: str) -> None:
    files.open_log(job).close()
    hold(files.receipt(job)).close()
    files.receipt(job).write_text("{}")
    files.items(job).write_text("")


def made(folder: Path) -> JobFiles:
    files = JobFiles(folder)
    files.make()
    return files


def test_of_a_job_that_is_over_the_log_alone_is_kept(tmp_path: Path) -> None:
    files = made(tmp_path)
    begin(files, "a")
    begin(files, "b")
    for ending in (".tmp", ".4711.tmp"):  # of a worker that was killed while it wrote
        files.receipt("a").with_suffix(ending).write_text("{")
    files.over("a")
    assert left(tmp_path) == {
        "a.log", "b.log", files.receipt("b").name, files.items("b").name, lock_path(files.receipt("b")).name,
    }  # fmt: skip


def test_the_last_logs_are_kept_whichever_crawl_has_made_them(tmp_path: Path) -> None:
    files = made(tmp_path)
    begin(files, "not-over")
    names = [f"job-{number}" for number in range(KEPT)]
    for number, name in enumerate(names):
        begin(files, name)
        os.utime(files.log(name), (number, number))
        files.over(name)
    again = made(tmp_path)
    for name in ("x", "y", "z"):
        begin(again, name)
        again.over(name)
    logs = {path.stem for path in tmp_path.rglob("*.log")}
    assert logs == {"not-over", *names[3:], "x", "y", "z"}
    assert again.receipt("not-over").exists()


def test_of_a_run_that_is_over_the_logs_alone_are_kept_but_for_workers_that_live(tmp_path: Path) -> None:
    files = made(tmp_path)
    for job in ("run1-000001-1-aa", "run1-000002-1-bb", "run2-000001-1-cc"):
        begin(files, job)
    lives = hold(files.receipt("run1-000002-1-bb"))
    made(tmp_path).forget(["run0", "run1"])
    assert len(list(tmp_path.rglob("*.log"))) == 3
    receipts = {path.stem for path in files.receipt("any").parent.iterdir()}
    assert receipts == {"run1-000002-1-bb", "run2-000001-1-cc"}
    lives.close()
    files.forget(["run1"])
    assert not files.receipt("run1-000002-1-bb").exists()


def test_what_can_t_be_removed_stays(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    files = made(folder)
    begin(files, "a")
    folder.rename(tmp_path / "moved")
    folder.touch()  # in its place, so that even root finds no way
    files.over("a")
    assert len(left(tmp_path / "moved")) == 4
