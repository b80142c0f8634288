"""Receipts that no honest worker writes: refused in clear words, in no time."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from hostile import forged, is_fit_to_print, packed

from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.receipt import Receipt


@pytest.mark.parametrize("size", [None, 10**15, 4])
def test_a_bitmap_and_positions_of_a_lie_cost_no_time(size: int | None) -> None:
    """4 MB of bits and 5,000 positions would be 20 GB of shifting, on the event loop of the coordinator."""
    bitmap = base64.b64encode(b"\xff" * 4_000_000).decode()
    text = forged(size=10**15, settled=bitmap, failed={"http 404": [*range(5_000), 0]})
    began = time.process_time()
    with pytest.raises(
        WireError, match="sent were 4" if size == 4 else "position 0 is not settled, or has two"
    ) as caught:
        Receipt.from_json(text, size=size)
    assert time.process_time() - began < 0.5
    assert is_fit_to_print(str(caught.value))


@pytest.mark.parametrize("name", ["items", "pages", "size", "sequence", "unexported", "activity"])
def test_a_count_that_no_database_holds_is_refused(name: str) -> None:
    for count in (2**53 + 1, 10**30):
        with pytest.raises(WireError, match=f"{name} is "):
            Receipt.from_json(forged(**{name: count}))
    with pytest.raises(WireError, match="items of 'a' is "):
        Receipt.from_json(forged(feeds=[["a", 10**30]]))


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400, 1e19])
def test_a_stat_that_no_sum_holds_is_refused(value: float) -> None:
    with pytest.raises(WireError, match="numbers below"):
        Receipt.from_json(forged(stats={"elapsed_time_seconds": value}))


TOO_MUCH: dict[str, dict[str, Any]] = {
    "a reason": {"failed": {"x" * 201: [0, 1, 2, 3]}},
    "a reason of the filtered": {"filtered": {"x" * 100_000: [0]}},
    "a finish reason": {"finish_reason": "x" * 100_000},
    "controls": {"failed": {"a\n2026 ERROR: \x1b[2J": [0]}},
    "controls in the finish reason": {"finish_reason": "a\nb"},
    "an example": {"failed": {"E": [0]}, "examples": {"E": "x" * 301}},
    "an example of no reason": {"failed": {"E": [0]}, "examples": {"F": "x"}},
    "examples": {
        "failed": {f"E{number}": [] for number in range(101)},
        "examples": {f"E{number}": "x" for number in range(101)},
    },
    "controls in an example": {"followed": {"E": 1}, "examples": {"E": "a\n\x1b[2J"}},
    "an example that is no text": {"followed": {"E": 1}, "examples": {"E": ["x"]}},
    "examples that are a list": {"examples": [["E", "x"]]},
    "stats": {"stats": {f"stat{number}": 1 for number in range(100_000)}},
    "the name of a stat": {"stats": {"x" * 501: 1}},
    "feeds": {"feeds": [["file:///1", 0]] * 100_000},
    "the URL of a feed": {"feeds": [["x" * 5_000, 0]]},
    "a job": {"job": "x" * 300},
    "a field": {"x" * 100_000: 1},
    "a format": {"format": "x" * 100_000},
    "all of it": {"targets": ["x" * 17_000_000]},
}


@pytest.mark.parametrize("values", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_texts_of_a_receipt_are_few_and_short_and_printable(values: dict[str, Any]) -> None:
    """A reason is stored with each of its positions: 1 MB for 1,000 requests would make the ledger 1 GB larger."""
    with pytest.raises(WireError) as caught:
        Receipt.from_json(forged(**values))
    assert is_fit_to_print(str(caught.value))


def test_many_payloads_of_targets_are_no_bomb() -> None:
    """Each is 16 MB unpacked and 16 KB here, and a receipt has room for a thousand."""
    payload = packed(b'["' + b"x" * 16_000_000 + b'"]')
    began = time.process_time()
    found = Receipt.from_json(forged(targets=[payload] * 800)).found()
    for _ in range(4):
        assert len(next(found)) == 1
    with pytest.raises(WireError, match="more than 67,108,864 bytes of them, unpacked"):
        next(found)
    assert time.process_time() - began < 2
