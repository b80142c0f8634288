"""Where the feeds of a run are, by what its coordinator has told the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.results.folders import folders_of


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file://{}/items/%(batch)s_%(name)s.jl", "items"),
        ("FILE://localhost{}/items/%(batch)s.jl", "items"),
        ("file://{}/with%%20blank/%(batch)s.jl", "with blank"),
        ("{}/with%%20blank/%(batch)s.jl", "with%20blank"),
        ("{}/items/a-%(batch)s.jl", "items"),
        ("{}/items/%(name)s/%(batch)s.jl", "items"),
        ("items/%(batch)s.jl", "items"),
        ("%(batch)s.jl", "."),
    ],
)
def test_of_a_file_it_is_the_innermost_folder(
    url: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("items", "with blank", "with%20blank"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    ((here,), elsewhere) = folders_of([url.format(tmp_path)])
    assert (here.resolve(), elsewhere) == ((tmp_path / folder).resolve(), [])


@pytest.mark.parametrize(
    "url",
    ["ftp://u@h/items/%(batch)s.jl", "s3://b/%(batch)s.jl", "file:///no/such/folder/%(batch)s.jl",
     "file:///%(batch)s.jl", "/%(name)s/%(batch)s.jl", "file://other.host/tmp/%(batch)s.jl", "%(uri)s://h/%(batch)s.jl"],
)  # fmt: skip
def test_what_is_not_here_is_named(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="found no folder here") as caught:
        folders_of([url])
    assert url in str(caught.value)
    assert "scrapy batches merge DIR -O FILE" in str(caught.value)


def test_of_several_each_once_and_what_is_not_here_beside_them(tmp_path: Path) -> None:
    urls = [f"{tmp_path}/%(batch)s.jl", "ftp://h/%(batch)s.csv", f"file://{tmp_path}/%(batch)s.csv"]
    assert folders_of(urls) == ([tmp_path], ["ftp://h/%(batch)s.csv"])
    assert folders_of([]) == ([], [])
