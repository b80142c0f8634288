"""Feeds in a folder that are there as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from listing import shown
from scrapy import Spider

from scrapy_distributed.results.whole_file import WholeFileStorage

LINE = b'{"price": 1}\n'
SPIDER = Spider(name="items")


def test_all_who_name_it_name_it_for_urls_and_for_paths() -> None:
    root = Path(__file__).parents[2]
    line = 'FEED_STORAGES = dict.fromkeys(["", "file"], "scrapy_distributed.results.whole_file.WholeFileStorage")'
    for file in ("README.md", "scrapy_distributed/results/whole_file.py", "example_project/properties/settings.py"):
        text = (root / file).read_text()
        assert text.count(line) == text.count("FEED_STORAGES = ") == 1, file


def test_a_feed_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "1 é.jl"
    storage = WholeFileStorage(path.as_uri())
    file = storage.open(SPIDER)
    file.write(LINE * 10_000)
    assert shown(path.parent) == []
    assert len(list(path.parent.iterdir())) == 1
    storage.store(file)
    assert path.read_bytes() == LINE * 10_000
    assert list(path.parent.iterdir()) == [path]


def test_a_feed_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "1.jl"
    one, other = (WholeFileStorage(str(path), feed_options={"overwrite": True}) for _ in range(2))
    files = [one.open(SPIDER), other.open(SPIDER)]
    files[0].write(LINE)
    files[1].write(LINE * 2)
    one.store(files[0])
    with pytest.raises(FileExistsError):
        other.store(files[1])
    assert path.read_bytes() == LINE
    assert shown(tmp_path) == ["1.jl"]
    assert Path(files[1].name).read_bytes() == LINE * 2
