"""The targets that a worker reports, and the payloads that they are written in. Pure: no crawl."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy import Request, Spider
from scrapy.dupefilters import BaseDupeFilter, RFPDupeFilter
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES, MAX_JSON_BYTES, decode_payload, url_of
from scrapy_distributed.wire.receipt import MAX_BYTES, MAX_PAYLOAD, MAX_PAYLOAD_VALUES, MAX_TARGETS_BYTES, Receipt
from scrapy_distributed.wire.seen_key import seen_key
from scrapy_distributed.worker import targets as module
from scrapy_distributed.worker.sessions import Sessions
from scrapy_distributed.worker.targets import Targets


class Plain(Spider):
    name = "plain"


class Fingerprinter:
    """One of the project's own that does not take every request."""

    def fingerprint(self, request: Request) -> bytes:
        if "odd" in request.url:
            raise ValueError("odd")
        return quick_fingerprint(request)


def targets_of(*own: Request, dupe_filter: type = RFPDupeFilter, **settings: Any) -> Targets:
    stats = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
    crawler: Any = SimpleNamespace(
        spider=Plain(), stats=stats, settings=Settings({"DUPEFILTER_CLASS": dupe_filter}),
        request_fingerprinter=Fingerprinter(), get_downloader_middleware=lambda cls: None,
    )  # fmt: skip
    return Targets(
        crawler,
        config=Config.from_settings(Settings(settings)),
        own=own,
        offsite=Offsite(crawler),
        sessions=Sessions(own, {}),
    )


def counted(targets: Targets) -> tuple[int, int]:
    assert targets.stats is not None
    reported = targets.stats.get_value("distributed/targets_reported", 0)
    return reported, targets.stats.get_value("distributed/targets_duplicates", 0)


def found(targets: Targets) -> list[Any]:
    return [element for payload in targets.payloads(0b1) for element in decode_payload(payload)]


def test_each_is_reported_once_and_in_order() -> None:
    targets = targets_of()
    for number in (3, 1, 3, 2, 1):
        assert targets.take(Request(f"http://a/{number}"), 0) is None
    assert found(targets) == ["http://a/3", "http://a/1", "http://a/2"]
    assert counted(targets) == (3, 2)


def test_what_is_not_to_be_filtered_is_reported_each_time() -> None:
    targets = targets_of()
    for dont_filter in (False, True, True, False):
        targets.take(Request("http://a/", dont_filter=dont_filter), 0)
    assert [isinstance(element, dict) for element in found(targets)] == [False, True, True]
    assert counted(targets) == (3, 1)


def test_where_nothing_filters_each_is_reported_each_time_of_settled_requests() -> None:
    targets = targets_of(Request("http://a/"), dupe_filter=BaseDupeFilter)
    for position in (0, 1, 0):
        targets.take(Request("http://a/"), position)
    assert found(targets) == ["http://a/", "http://a/"]
    assert counted(targets) == (3, 0)


def test_those_of_its_own_batch_are_not_reported() -> None:
    own = [Request("http://a/odd"), Request("http://a/1"), Request("http://a/2", dont_filter=True)]
    targets = targets_of(*own)
    for number in (1, 2):
        targets.take(Request(f"http://a/{number}"), 0)
    assert found(targets) == ["http://a/2"]
    assert counted(targets) == (1, 1)


def test_what_can_not_travel_comes_back() -> None:
    targets = targets_of()
    for request in (Request("http://a/", meta={"key": object()}), Request("http://a/odd")):
        assert targets.take(request, 0) is request
    assert targets.take(Request("ftp://a/"), 0) is None
    assert (found(targets), targets.payloads(0b1), counted(targets)) == ([], (), (0, 0))


@given(st.lists(st.integers(0, 40), max_size=30))
def test_payloads_hold_everything_in_order_and_stay_under_their_limits(sizes: list[int]) -> None:
    targets = targets_of()
    urls = [f"http://a/{number:02d}{'x' * size}" for number, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PAYLOAD_REQUESTS", 4)
        patch.setattr(module, "PAYLOAD_BYTES", 50)
        assert [targets.take(Request(url), 0) for url in urls] == [None] * len(urls)
    chunks = [decode_payload(payload) for payload in targets.payloads(0b1)]
    assert [url for chunk in chunks for url in chunk] == urls
    for chunk in chunks:
        assert 0 < len(chunk) <= 4
        assert len(chunk) == 1 or sum(len(url) + 2 for url in chunk) <= 50


def test_every_payload_can_be_unpacked() -> None:
    """The longest is one of ``PAYLOAD_BYTES`` with its commas, or one request that is allowed to travel."""
    assert module.PAYLOAD_BYTES + module.PAYLOAD_REQUESTS + 2 < MAX_JSON_BYTES
    targets = targets_of()
    for number in range(2 * module.PAYLOAD_REQUESTS + 1):
        targets.take(Request(f"http://a/{number}"), 0)
    assert [len(decode_payload(payload)) for payload in targets.payloads(0b1)] == [5000, 5000, 1]
    assert all(payload.isascii() for payload in targets.payloads(0b1))


@pytest.mark.parametrize(("limit", "reported"), [("ROOM_BYTES", 6), ("ROOM_PACKED_BYTES", 7), ("ROOM_REQUESTS", 8)])
def test_what_is_more_than_a_receipt_holds_is_crawled_here_and_counted(
    limit: str, reported: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, limit, 8 if limit == "ROOM_REQUESTS" else 80)
    targets = targets_of()
    requests = [Request(f"http://a/{number}") for number in range(9)]  # of 12 bytes, and a comma
    assert [targets.take(request, 0) for request in requests] == [None] * reported + requests[reported:]
    assert targets.take(requests[-1], 0) is None  # it is crawled here already
    assert found(targets) == [request.url for request in requests[:reported]]
    assert targets.stats is not None
    assert targets.stats.get_value("distributed/local/receipt_full") == 9 - reported
    assert len([record for record in caplog.records if "the receipt is full" in record.getMessage()]) == 1


def test_what_is_reported_can_be_read() -> None:
    """Whatever is not packed well, or is packed very well: the receipt stays under its limits, with room to spare."""
    worst = module.ROOM_PACKED_BYTES * 5 // 4 + MAX_ARGUMENT_BYTES
    assert worst < MAX_BYTES * 3 // 4
    assert (module.PAYLOAD_BYTES + module.PAYLOAD_REQUESTS) * 5 // 4 + 1000 < MAX_PAYLOAD > MAX_ARGUMENT_BYTES
    assert module.ROOM_BYTES * 21 // 20 < MAX_TARGETS_BYTES
    targets = targets_of()
    for number in range(3):
        targets.take(Request(f"http://a/{number}", method="POST", body=b"x" * 5_000_000), 0)
    report = Receipt(job="j", sequence=1, final=True, size=0, settled=0, targets=targets.payloads(0b1))
    assert len(report.targets) == 3
    assert [len(one["body"]) for (one,) in Receipt.from_json(report.to_json()).found()] == [5_000_000] * 3


def test_a_payload_has_so_many_values_and_a_request_with_more_comes_back() -> None:
    """A coordinator parses a payload in one turn of its event loop."""
    targets = targets_of()
    for number in range(3):
        targets.take(Request(f"http://a/{number}", meta={"a": [0] * (module.PAYLOAD_VALUES // 2)}), 0)
    most = Request("http://a/most", meta={"a": [0] * (MAX_PAYLOAD_VALUES - 10)})
    assert targets.take(most, 0) is None
    more = Request("http://a/more", meta={"a": [0] * MAX_PAYLOAD_VALUES})
    assert targets.take(more, 0) is more
    report = Receipt(job="j", sequence=1, final=True, size=0, settled=0, targets=targets.payloads(0b1))
    assert [len(elements) for elements in Receipt.from_json(report.to_json()).found()] == [1, 1, 1, 1]


def test_what_may_not_be_reported_comes_back_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    targets = targets_of()
    for number in range(2):
        request = Request("http://a/", meta={"proxy": f"http://b/{number}"})
        assert targets.take(request, 0) is request
    assert (found(targets), counted(targets)) == ([], (0, 0))
    assert targets.stats is not None
    assert targets.stats.get_value("distributed/local/not_reportable") == 2
    assert caplog.text.count("Crawled here, it may not be reported: <GET http://a/>: meta['proxy'] does not go") == 1


def test_what_is_not_to_be_filtered_is_left_to_the_next_attempt_where_its_start_request_is() -> None:
    targets = targets_of()
    for position in (0, 1):
        targets.take(Request("http://a/again", dont_filter=True), position)
        targets.take(Request(f"http://a/{position}"), position)
    elements = [element for payload in targets.payloads(0b10) for element in decode_payload(payload)]
    assert [url_of(element) for element in elements] == ["http://a/0", "http://a/1", "http://a/again"]


def test_in_a_shared_run_the_key_of_each_is_reported() -> None:
    targets = targets_of(DISTRIBUTED_FOUND_KEYS=True)
    requests = [Request(f"http://a/{number}") for number in range(3)]
    for request in (*requests, Request("http://a/0", dont_filter=True), Request("http://a/0", dont_filter=True)):
        targets.take(request, 0)
    receipt = Receipt(
        job="j", sequence=1, final=True, size=1, settled=1, targets=targets.payloads(0b1), target_keys=targets.keys
    )
    (pairs,) = Receipt.from_json(receipt.to_json()).found_with_keys()
    assert [body for _, body in pairs][:3] == [f'"{request.url}"' for request in requests]
    keys = [key for key, _ in pairs]
    assert keys[:3] == [seen_key(quick_fingerprint(request)) for request in requests]
    assert len({*keys}) == 5, "what is not to be filtered has a key of its own each time"


def test_elsewhere_no_keys_are_reported() -> None:
    targets = targets_of()
    targets.take(Request("http://a/0"), 0)
    assert len(targets.payloads(0b1)) == 1
    assert targets.keys == ()
