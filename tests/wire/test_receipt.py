"""The receipt: what is written is read, and what is forged is refused by ``WireError`` alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.errors import WireError
from scrapy_distributed.wire import receipt_file
from scrapy_distributed.wire.code import Egg
from scrapy_distributed.wire.payload import encode_payload
from scrapy_distributed.wire.receipt import (
    MAX_FEEDS,
    MAX_ITEMS_BYTES,
    MAX_POLL,
    MAX_SLOTS,
    MAX_STATS,
    MAX_TARGETS,
    FeedFile,
    ItemsFile,
    Receipt,
    numbers,
)
from scrapy_distributed.wire.receipt_file import items_path, receipt_path

texts = st.text(max_size=20)
reasons = texts.filter(str.isprintable)
jobs = st.from_regex(r"[A-Za-z0-9._-]{1,200}", fullmatch=True)
counts = st.integers(0, 2**53)
finite = st.floats(-9e18, 9e18)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


keys = st.binary(min_size=1, max_size=30).map(bytes.hex)
sizes = st.integers(0, MAX_ITEMS_BYTES)
items_files = st.tuples(sizes, sizes, st.binary(min_size=32, max_size=32).map(bytes.hex)).map(
    lambda drawn: ItemsFile(*sorted(drawn[:2]), drawn[2])
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
            outcomes[state].setdefault(draw(reasons), []).append(position)
    final = draw(st.booleans())
    failed = sum(1 << position for position in Receipt.positions(outcomes["failed"]))
    followed = draw(st.dictionaries(reasons, counts, max_size=3)) if final else {}
    of_failed = sorted({*outcomes["failed"], *followed})
    told = draw(st.sets(st.sampled_from(of_failed), max_size=3)) if final and of_failed else set()
    return Receipt(
        job=draw(jobs), sequence=draw(counts), final=final, size=size, settled=settled,
        **outcomes, again=draw(st.integers(0, failed)) & failed, items=draw(counts),
        pages=draw(counts), activity=draw(counts), clean=draw(st.booleans()),
        stored=draw(st.booleans()),
        feeds=tuple(draw(st.lists(st.builds(FeedFile, texts, counts, counts), max_size=3))) if final else (),
        slots=draw(st.none() | st.integers(1, MAX_SLOTS)), egg=draw(st.none() | st.just(Egg("r1", "0" * 16))),
        poll_seconds=draw(st.none() | st.floats(0, MAX_POLL)),
        unexported=draw(counts), followed=followed,
        examples={reason: draw(reasons) for reason in sorted(told)},
        landed=tuple((position, draw(keys)) for position in draw(st.sets(st.sampled_from(range(size)))) if size)
        if size and final else (), finish_reason=draw(reasons),
        targets=tuple(draw(st.lists(texts | st.just(encode_payload(['"http://a/"'])), max_size=3))) if final else (),
        items_file=draw(st.none() | items_files) if final else None,
        stats=draw(st.dictionaries(texts, st.integers(1 - 2**63, 2**63 - 1) | finite, max_size=3)) if final else {},
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
        ({"format": 1}, "format 1, expected 7"),
        ({"format": 2}, "format 2, expected 7"),
        ({"settled": "Hw=="}, "requests that it never had"),  # 0b11111 of 4
        ({"settled": "not base64"}, "no receipt"),
        ({"settled": 7}, "no receipt"),
        ({"size": -1}, "no receipt"),
        ({"followed": []}, r"found \[\], expected a dict"),
        ({"followed": {"http 404": "1"}}, "number of 'http 404' is '1'"),
        ({"followed": {"http 404": -1}}, "number of 'http 404' is -1"),
        ({"followed": {"http\n404": 1}}, "printable characters"),
        ({"followed": {str(number): 1 for number in range(1001)}}, "at most 1,000 reasons"),
        ({"landed": {"0": "aa"}}, "landed must be a list"),
        ({"landed": [[4, "aa"]]}, "position 4 is none of its requests"),
        ({"landed": [[True, "aa"]]}, "position True is none of its requests"),
        ({"landed": [[0, "aa"], [0, "bb"]]}, "redirected to two pages"),
        ({"landed": [[0, "a"]]}, "expected a key"),
        ({"landed": [[0, "AA"]]}, "expected a key"),
        ({"landed": [[0, ""]]}, "expected a key"),
        ({"landed": [[0, None]]}, "expected a key"),
        ({"landed": [[0, "aa" * 1001]]}, "expected a key of at most 2000 digits"),
        ({"landed": [[0]]}, "no receipt"),
        ({"size": 4.0}, "size is 4.0, expected a whole number"),
        ({"size": True}, "size is True, expected a whole number"),
        ({"size": 2}, "requests that it never had"),
        ({"items": -1}, "items is -1, expected a whole number of at least 0"),
        ({"activity": -1}, "activity is -1"),
        ({"activity": 1.5}, "activity is 1.5"),
        ({"activity": None}, "activity is None"),
        ({"pages": -1}, "pages is -1"),
        ({"final": 1}, "expected a bool"),
        ({"stored": "yes"}, "expected a bool"),
        ({"clean": None}, "expected a bool"),
        ({"sequence": "9"}, "sequence is '9'"),
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
        ({"stats": {"\ud800": 1}}, "expected at most 5,000 stats"),
        ({"finish_reason": "\udfff"}, "printable characters"),
        ({"failed": {"\ud800": [0]}}, "printable characters"),
        ({"feeds": [["\ud800", 0]]}, "expected at most 50,000 feeds"),
        ({"job": "../x"}, "job id '../x'"),
        ({"feeds": [1]}, "no receipt"),
        ({"feeds": ["ftp://h/1.jl"]}, "no receipt"),
        ({"feeds": ["ab"]}, "items of 'a' is 'b'"),
        ({"feeds": [["ftp://h/1.jl"]]}, "no receipt"),
        ({"feeds": [["ftp://h/1.jl", 1, 2, 3]]}, "no receipt"),
        ({"feeds": [["ftp://h/1.jl", 1, -1]]}, "feed of 'ftp://h/1.jl' is -1"),
        ({"feeds": [["ftp://h/1.jl", 1, "0"]]}, "feed of 'ftp://h/1.jl' is '0'"),
        ({"feeds": [["ftp://h/1.jl", -1]]}, "items of 'ftp://h/1.jl' is -1"),
        ({"feeds": [["ftp://h/1.jl", True]]}, "items of 'ftp://h/1.jl' is True"),
        ({"feeds": [["ftp://h/1.jl", 1.0]]}, "items of 'ftp://h/1.jl' is 1.0"),
        ({"feeds": [[7, 1]]}, "each with a URL, a text of at most 4,096 characters"),
        ({"feeds": [[["x"], 1]]}, "each with a URL, a text of at most 4,096 characters"),
        ({"again": "AQ=="}, "tried again that have not failed"),
        ({"again": "AQ==", "filtered": {"offsite": [0]}}, "tried again that have not failed"),
        ({"again": "CA==", "failed": {"http 404": [0]}}, "tried again that have not failed"),
        ({"again": 1}, "no receipt"),
        ({"again": "not base64"}, "no receipt"),
        ({"again": None}, "no receipt"),
        ({"targets": "abc"}, "targets must be a list"),
        ({"targets": None}, "targets must be a list"),
        ({"targets": [["http://a/"]]}, "expected a str"),
        ({"targets": [1]}, "found 1, expected a str"),
        (
            {"targets": ["[]"], "final": False},
            "found targets, feeds, stats or losses, expected them in the final one alone",
        ),
        ({"items_file": [1, 9, "AB" * 32]}, "expected items, bytes and SHA-256 of a file beside a final one"),
        ({"items_file": [1, 9, "ab" * 33]}, "expected items, bytes and SHA-256 of a file beside a final one"),
        ({"items_file": [1, 9, None]}, "expected items, bytes and SHA-256 of a file beside a final one"),
        ({"items_file": [10, 9, "ab" * 32]}, "expected items, bytes and SHA-256 of a file beside a final one"),
        ({"items_file": [1, 9, "ab" * 32], "final": False}, "of a file beside a final one"),
        ({"items_file": [-1, 9, "ab" * 32]}, "items in the file beside it is -1"),
        ({"items_file": [1, "9", "ab" * 32]}, "size of the file beside it is '9'"),
        ({"items_file": [1, 9]}, "no receipt"),
        ({"items_file": "abc"}, "no receipt"),
        ({"items_file": 7}, "no receipt"),
        ({"feeds": "abc"}, "no receipt"),
        ({"feeds": None}, "no receipt"),
        ({"egg": ["../r1", "0" * 16]}, "expected a version and the digest of its code"),
        ({"egg": ["r1", "0" * 17]}, "expected a version and the digest of its code"),
        ({"egg": [1, ["0" * 16]]}, "expected a version and the digest of its code"),
        ({"egg": ["r1"]}, "no receipt: TypeError"),
        ({"slots": 0}, "found 0 slots of its node, expected 1 to 1,000"),
        ({"slots": 1001}, "found 1001 slots"),
        ({"slots": True}, "found True slots"),
        ({"slots": 2.0}, "found 2.0 slots"),
        ({"slots": "2"}, "found '2' slots"),
        ({"poll_seconds": -1}, "found -1 seconds between polls, expected 0 to 3600"),
        ({"poll_seconds": 3601.0}, "found 3601.0 seconds between polls"),
        ({"poll_seconds": float("nan")}, "found nan seconds between polls"),
        ({"poll_seconds": False}, "found False seconds between polls"),
        ({"poll_seconds": "5"}, "found '5' seconds between polls"),
        ({"more": 1}, "no receipt"),
    ],
)
def test_a_forged_receipt_is_refused_with_its_fault(forged: dict[str, Any], message: str) -> None:
    data = json.loads(a_receipt().to_json()) | forged
    with pytest.raises(WireError, match=message):
        Receipt.from_json(json.dumps(data))


def test_a_receipt_without_a_field_is_refused() -> None:
    for name in ("format", "job", "sequence", "final", "size", "settled", "again", "feeds", "targets"):
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


@given(st.data())
def test_a_mutated_receipt_is_read_as_a_receipt_or_refused(data: st.DataObject) -> None:
    """Bytes changed, cut out or put in, anywhere in a valid one: ``WireError``, or what is written again."""
    text = bytearray(data.draw(valid()).to_json(), "ascii")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 4)))
        text[start:end] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"-1", b"[", b'"', b"null", b"1e9", b"{}"])
        )
    try:
        receipt = Receipt.from_json(bytes(text))
    except WireError:
        return
    assert Receipt.from_json(receipt.to_json()) == receipt
    for _ in range(2):
        with contextlib.suppress(WireError):
            list(receipt.found())


@given(st.dictionaries(st.sampled_from(sorted(json.loads(a_receipt().to_json()))), json_values, min_size=2))
def test_fields_of_anything_are_read_as_a_receipt_or_refused(forged: dict[str, Any]) -> None:
    try:
        receipt = Receipt.from_json(json.dumps(json.loads(a_receipt().to_json()) | forged))
    except WireError:
        return
    failed = sum(1 << position for position in receipt.positions(receipt.failed))
    assert receipt.again & ~failed == 0
    assert not receipt.targets or receipt.final
    assert all(isinstance(file.url, str) and file.items >= 0 and file.feed >= 0 for file in receipt.feeds)
    assert Receipt.from_json(receipt.to_json()) == receipt


# Targets


def test_found_are_the_elements_of_all_payloads() -> None:
    long = [json.dumps(f"http://a/{number}") for number in range(1000)]
    targets = (encode_payload(['"http://a/"', '{"url":"http://b/","meta":{"rule":1}}']), encode_payload(long))
    receipt = Receipt.from_json(a_receipt(targets=targets).to_json())
    first, others = receipt.found()
    assert first == ["http://a/", {"url": "http://b/", "meta": {"rule": 1}}]
    assert others == [f"http://a/{number}" for number in range(1000)]
    assert list(a_receipt().found()) == []


@pytest.mark.parametrize(
    "payload", ["", "nonsense", "{}", "1", "zb85:", "zb85:nonsense", "zb85:\N{SNOWMAN}", "[" * 9999]
)
def test_a_bad_payload_is_told_when_it_is_read(payload: str) -> None:
    receipt = Receipt.from_json(a_receipt(targets=('["http://a/"]', payload)).to_json())
    found = receipt.found()
    assert next(found) == ["http://a/"]
    with pytest.raises(WireError, match="targets in the receipt of job j: "):
        next(found)


# Files


def test_only_one_claims_a_job(tmp_path: Path) -> None:
    path = tmp_path / "s.receipts" / "j.json"
    first, second = a_receipt(final=False), a_receipt(sequence=2, final=False)
    assert receipt_file.claim(path, first)
    assert not receipt_file.claim(path, second)
    assert Receipt.from_json(path.read_bytes()) == first
    assert [file.name for file in path.parent.iterdir()] == ["j.json"]
    receipt_file.write(path, second)
    assert not receipt_file.claim(path, first)
    assert Receipt.from_json(path.read_bytes()) == second


def test_a_claim_is_seen_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.json"
    link = os.link

    def watched(draft: Path, target: Path) -> None:
        assert not target.exists()
        link(draft, target)
        assert Receipt.from_json(target.read_bytes()) == a_receipt()

    monkeypatch.setattr(os, "link", watched)
    assert receipt_file.claim(path, a_receipt())

    def no_links(draft: Path, target: Path) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(PermissionError):
        receipt_file.claim(tmp_path / "k.json", a_receipt())
    assert [file.name for file in tmp_path.iterdir()] == ["j.json"]


def test_where_nobody_can_tell_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        receipt_file.claim(tmp_path / "file" / "j.json", a_receipt())
    with pytest.raises(OSError, match="file"):
        receipt_file.claim(tmp_path / "file" / "further" / "j.json", a_receipt())


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_receipt_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Receipt.from_json(data)


def test_hostile_texts_are_refused() -> None:
    for text in ("", "[" * 100_000, "9" * 5000, '{"format":1,"settled":"' + "A" * 100, "null", "NaN", b"\xff\xfe{"):
        with pytest.raises(WireError):
            Receipt.from_json(text)


def test_one_of_many_values_is_refused_before_they_are_made() -> None:
    for text in ("[" + "[]," * 5_000_000 + "1]", b"[" + b"{}," * 5_000_000 + b"1]"):
        began = process_time()
        with pytest.raises(WireError, match="values, expected at most 600,024"):
            Receipt.from_json(text, size=4)
        assert process_time() - began < 1  # parsed, three


@pytest.mark.parametrize(
    "forged",
    [
        {"feeds": (FeedFile("file:///1.jl", 1),)}, {"stats": {"a": 1}}, {"landed": ((0, "ab"),)},
        {"followed": {"timeout": 1}}, {"targets": ('["http://a/"]',)},
    ],
)  # fmt: skip
def test_while_its_job_runs_it_is_short(forged: dict[str, Any]) -> None:
    """It is read at each look."""
    assert Receipt.from_json(a_receipt(final=False, stored=False).to_json(), size=4)
    running = a_receipt(final=False, stored=False, **forged)
    with pytest.raises(WireError, match="expected them in the final one alone"):
        Receipt.from_json(running.to_json(), size=4)
    with pytest.raises(WireError, match=r"it is not final and has 1,1\d\d,\d\d\d bytes, expected at most 1,048,640"):
        Receipt.from_json(running.to_json()[:-1] + " " * 1_100_000 + "}", size=4)


def test_the_largest_that_a_worker_may_write_is_read() -> None:
    size = 1000
    every = list(range(size))
    packed = encode_payload([json.dumps(f"http://a/{hashlib.sha256(b'%d' % n).hexdigest()}") for n in range(5000)])
    assert "," not in packed
    largest = a_receipt(
        size=size, settled=(1 << size) - 1, failed={"http 404": every}, again=(1 << size) - 1,
        feeds=(FeedFile("file:///items/1.jl", 1, 0),) * MAX_FEEDS, stats={f"a/{n}": 1 for n in range(MAX_STATS)},
        landed=tuple((position, "ab") for position in every), targets=(packed,) * (MAX_TARGETS // 5000),
    )  # fmt: skip
    assert Receipt.from_json(largest.to_json(), size=size) == largest


def test_every_cut_off_receipt_is_refused() -> None:
    text = a_receipt(failed={"http 404": [0]}).to_json()
    for end in range(len(text)):
        with pytest.raises(WireError):
            Receipt.from_json(text[:end])


def test_it_is_written_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.receipts" / "j.json"
    first, second = a_receipt(final=False), a_receipt(sequence=2)
    receipt_file.write(path, first)
    seen = []
    replace = Path.replace

    def watched(draft: Path, target: Path) -> Path:
        seen.append((Receipt.from_json(target.read_bytes()), Receipt.from_json(draft.read_bytes()), draft.parent))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", watched)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    receipt_file.write(path, second)
    assert seen == [(first, second, path.parent)]  # until it is complete the old one stays
    assert Receipt.from_json(path.read_bytes()) == second
    assert len(synced) == 1
    assert [file.name for file in path.parent.iterdir()] == ["j.json"]


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.json"
    first = a_receipt()
    receipt_file.write(path, first)

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        receipt_file.write(path, a_receipt(sequence=2))
    assert Receipt.from_json(path.read_bytes()) == first


def test_it_lies_in_a_sibling_folder_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert receipt_path("/x/logs/p/s/j.log", "j") == Path("/x/logs/p/s.receipts/j.json")
    monkeypatch.chdir(tmp_path)
    assert receipt_path("logs/p/my.spider/2.1.log", "2.1") == tmp_path / "logs/p/my.spider.receipts/2.1.json"
    assert receipt_path("j.log", "j") == tmp_path.with_name(f"{tmp_path.name}.receipts") / "j.json"
    assert items_path(Path("/x/logs/p/s.receipts/2.1.json")) == Path("/x/logs/p/s.receipts/2.1.items")


def test_two_jobs_with_dots_do_not_share_a_draft(tmp_path: Path) -> None:
    one, two = tmp_path / "run.1.json", tmp_path / "run.2.json"
    receipt_file.write(one, a_receipt(job="run.1"))
    receipt_file.write(two, a_receipt(job="run.2"))
    assert Receipt.from_json(one.read_bytes()).job == "run.1"


def test_only_numbers_that_json_knows_are_stats() -> None:
    stats = {"a": 1, "b": 2.5, "c": True, "d": "x", "e": float("nan"), "f": float("inf"), "g": None, "h": -float("inf")}
    assert numbers(stats) == {"a": 1, "b": 2.5}
    assert numbers({"a": 2**63 - 1, "b": 2**63, "c": -(2**63), "d": 1e19, "e": 10**400}) == {"a": 2**63 - 1}


def test_only_as_many_stats_as_a_receipt_holds_are_sent() -> None:
    stats = {1: 1, "x" * 501: 1, "x" * 500: 1, "\ud800": 1} | {str(number): number for number in range(6_000)}
    sent = numbers(stats)  # type: ignore[arg-type]
    assert len(sent) == 5_000
    assert list(sent)[:2] == ["x" * 500, "0"]


def test_a_receipt_of_another_size_is_refused() -> None:
    text = a_receipt().to_json()
    assert Receipt.from_json(text, size=4) == Receipt.from_json(text)
    with pytest.raises(WireError, match="it speaks of 4 requests, sent were 5"):
        Receipt.from_json(text, size=5)


def test_positions_are_those_of_all_reasons() -> None:
    assert sorted(Receipt.positions({"a": [3, 1], "b": [2]})) == [1, 2, 3]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((), "expected a key of each"), (("00" * 12,), "expected a key of each"), (("zz" * 24,), "expected a key"),
        (("00" * 36,), "expected a key of each"),
    ],
)  # fmt: skip
def test_finds_of_a_shared_run_need_a_key_each(keys: tuple[str, ...], words: str) -> None:
    receipt = Receipt(
        job="j", sequence=1, final=True, size=1, settled=1, targets=('["http://a/1","http://a/2"]',), target_keys=keys
    )
    with pytest.raises(WireError, match=words):
        list(receipt.found_with_keys())


def test_keys_of_other_payloads_than_it_has_are_refused() -> None:
    receipt = Receipt(job="j", sequence=1, final=True, size=1, settled=1, targets=("[]",), target_keys=("", ""))
    with pytest.raises(WireError, match="keys of 2 payloads, it has 1"):
        Receipt.from_json(receipt.to_json())
