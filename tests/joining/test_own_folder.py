"""The folders of workers that are started in one place."""

from __future__ import annotations

from pathlib import Path

from scrapy_distributed.joining.own_folder import OwnFolder


def test_no_two_workers_have_one_folder_and_one_that_is_free_is_used_again(tmp_path: Path) -> None:
    place = tmp_path / "logs"
    first, second = OwnFolder(place), OwnFolder(place)
    assert [first.path, second.path] == [place / "1", place / "2"]
    first.close()
    again, third = OwnFolder(place), OwnFolder(place)
    assert [again.path, third.path] == [place / "1", place / "3"]
    for one in (second, again, third):
        one.close()
