"""The receipt: what is written is read, and what is forged is refused by ``WireError`` alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed import receipt as receipts
from scrapy_distributed.errors import WireError
from scrapy_distributed.receipt import Receipt, numbers, receipt_path, without_password

texts = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def valid(draw: st.DrawFn) -> Receipt:
    size = draw(st.integers(0, 200))
    settled = draw(st.integers(0, (1 << size) - 1))
    free = [position for position in range(size) if settled >> position & 1]
    outcomes: dict[str, dict[str, list[int]]] = {"failed": {}, "filtered": {}}
    for position in free:
        state = draw(st.sampled_from(["crawled", "failed", "filtered"])) if len(free) < 20 else "crawled"
        if state != "crawled":
            outcomes[state].setdefault(draw(texts), []).append(position)
    return Receipt(
        job=draw(texts), sequence=draw(st.integers(0)), final=draw(st.booleans()), size=size, settled=settled,
        **outcomes, items=draw(st.integers(0)), pages=draw(st.integers(0)), clean=draw(st.booleans()),
        stored=draw(st.booleans()), feeds=tuple(draw(st.lists(texts, max_size=3))), finish_reason=draw(texts),
        stats=draw(st.dictionaries(texts, st.integers() | finite, max_size=3)),
    )  # fmt: skip


def a_receipt(**values: Any) -> Receipt:
    return Receipt(**{"job": "j", "sequence": 1, "final": True, "size": 4, "settled": 0b0111, "stored": True} | values)


@given(valid())
def test_what_is_written_is_read(receipt: Receipt) -> None:
    text = receipt.to_json()
    assert text.isascii()
    assert Receipt.from_json(text) == Receipt.from_json(text.encode()) == receipt


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ({"settled": "Hw=="}, "requests that it never had"),  # 0b11111 of 4
        ({"settled": "not base64"}, "no receipt"),
        ({"settled": 7}, "no receipt"),
        ({"size": -1}, "no receipt"),
        ({"size": 4.0}, "no receipt"),
        ({"size": 2}, "requests that it never had"),
        ({"items": -1}, "no receipt"),
        ({"final": 1}, "expected a bool"),
        ({"stored": "yes"}, "expected a bool"),
        ({"clean": None}, "expected a bool"),
        ({"sequence": "9"}, "expected a int"),
        ({"job": None}, "expected a str"),
        ({"failed": {"http 404": [3]}}, "position 3 is not settled"),
        ({"failed": {"http 404": [-1]}}, "position -1"),
        ({"failed": {"http 404": [0, 0]}}, "two outcomes"),
        ({"failed": {"http 404": [1]}, "filtered": {"offsite": [1]}}, "two outcomes"),
        ({"failed": {"http 404": [10**9]}}, "is not settled"),
        ({"failed": {"http 404": ["0"]}}, "position '0'"),
        ({"failed": {"http 404": [True]}}, "position True"),
        ({"failed": {"http 404": 0}}, "no receipt"),
        ({"failed": [[0]]}, "no receipt"),
        ({"stats": []}, "expected a dict"),
        ({"stats": {"a": "b"}}, "no receipt"),
        ({"stats": {"a": None}}, "no receipt"),
        ({"feeds": [1]}, "no receipt"),
        ({"feeds": "abc"}, "no receipt"),
        ({"feeds": None}, "no receipt"),
        ({"more": 1}, "no receipt"),
    ],
)
def test_a_forged_receipt_is_refused_with_its_fault(forged: dict[str, Any], message: str) -> None:
    data = json.loads(a_receipt().to_json()) | forged
    with pytest.raises(WireError, match=message):
        Receipt.from_json(json.dumps(data))


def test_a_receipt_without_a_field_is_refused() -> None:
    for name in ("format", "job", "sequence", "final", "size", "settled", "feeds"):
        data = json.loads(a_receipt().to_json())
        del data[name]
        with pytest.raises(WireError):
            Receipt.from_json(json.dumps(data))


@given(
    field=st.sampled_from(sorted(json.loads(a_receipt().to_json()))),
    value=json_values,
)
def test_a_field_of_anything_is_read_as_a_receipt_or_refused(field: str, value: Any) -> None:
    data = json.loads(a_receipt().to_json()) | {field: value}
    try:
        receipt = Receipt.from_json(json.dumps(data))
    except WireError:
        return
    assert receipt.settled.bit_length() <= receipt.size
    assert all(receipt.settled >> n & 1 for n in receipt.positions(receipt.failed))
    again = Receipt.from_json(receipt.to_json())
    assert again == receipt or value != value


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_receipt_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Receipt.from_json(data)


def test_hostile_texts_are_refused() -> None:
    for text in ("", "[" * 100_000, "9" * 5000, '{"format":1,"settled":"' + "A" * 100, "null", "NaN", b"\xff\xfe{"):
        with pytest.raises(WireError):
            Receipt.from_json(text)


def test_every_cut_off_receipt_is_refused() -> None:
    text = a_receipt(failed={"http 404": [0]}).to_json()
    for end in range(len(text)):
        with pytest.raises(WireError):
            Receipt.from_json(text[:end])


def test_it_is_written_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.receipts" / "j.json"
    first, second = a_receipt(final=False), a_receipt(sequence=2)
    receipts.write(path, first)
    seen = []
    replace = Path.replace

    def watched(draft: Path, target: Path) -> Path:
        seen.append((Receipt.from_json(target.read_bytes()), Receipt.from_json(draft.read_bytes()), draft.parent))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", watched)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    receipts.write(path, second)
    assert seen == [(first, second, path.parent)]  # until it is complete the old one stays
    assert Receipt.from_json(path.read_bytes()) == second
    assert len(synced) == 1
    assert [file.name for file in path.parent.iterdir()] == ["j.json"]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.json"
    first = a_receipt()
    receipts.write(path, first)

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        receipts.write(path, a_receipt(sequence=2))
    assert Receipt.from_json(path.read_bytes()) == first


def test_it_lies_in_a_sibling_folder_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receipt_path("/x/logs/p/s/j.log", "j") == Path("/x/logs/p/s.receipts/j.json")
    monkeypatch.chdir(tmp_path)
    assert receipt_path("logs/p/my.spider/2.1.log", "2.1") == tmp_path / "logs/p/my.spider.receipts/2.1.json"
    assert receipt_path("j.log", "j") == tmp_path.with_name(f"{tmp_path.name}.receipts") / "j.json"


def test_two_jobs_with_dots_do_not_share_a_draft(tmp_path: Path) -> None:
    one, two = tmp_path / "run.1.json", tmp_path / "run.2.json"
    receipts.write(one, a_receipt(job="run.1"))
    receipts.write(two, a_receipt(job="run.2"))
    assert Receipt.from_json(one.read_bytes()).job == "run.1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://user:s3cret@host:21/a?b#c", "ftp://user@host:21/a?b#c"),
        ("ftp://user@host/a", "ftp://user@host/a"),
        ("ftp://:s3cret@host/a", "ftp://@host/a"),
        ("s3://k:s3cret/with@slash@b/a", None),
        ("ftp://user:s3@cret@host/a", "ftp://user@host/a"),
        ("ftp://user:s3:cret@[::1]:21/a", "ftp://user@[::1]:21/a"),
        ("/plain/path.jl", "/plain/path.jl"),
        ("file:///plain/path.jl", "file:///plain/path.jl"),
        ("ftp://user:s3cret@[host/a", None),
    ],
)
def test_no_url_keeps_its_password(url: str, expected: str | None) -> None:
    shown = without_password(url)
    assert "s3cret" not in shown
    if expected is not None:
        assert shown == expected


def test_only_numbers_that_json_knows_are_stats() -> None:
    stats = {"a": 1, "b": 2.5, "c": True, "d": "x", "e": float("nan"), "f": float("inf"), "g": None, "h": -float("inf")}
    assert numbers(stats) == {"a": 1, "b": 2.5}


def test_positions_are_those_of_all_reasons() -> None:
    assert sorted(Receipt.positions({"a": [3, 1], "b": [2]})) == [1, 2, 3]
