"""Links and requests of any page: each is diverted and arrives as it left, or stays."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest
from diverting import Plain as OnSite
from diverting import diverter
from hostile import TRAP, Raising, Restless, characters, json_values, ran, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapy import Request
from scrapy.http import JsonRequest

from scrapy_distributed.wire.payload import encode_payload
from scrapy_distributed.wire.request import decode_requests

hosts = st.sampled_from([
    "a", "a:81", "user:pass@a", "b\u00fccher.de", "xn--bcher-kva.de", "\u2603.net", "a..b", "a" * 70 + ".de",
    "\u00fc" * 70 + ".de", "[::1]", "[::1", "a\\b", "a b", "a\nb", "a%00b", "", "\u2100.com", "%zz@a", "a:", "1.2.3",
])  # fmt: skip
links = st.builds(
    "{}{}/{}".format, st.sampled_from(["http://", "https://", "HTTP://", "//", "http:", "file://", "ftp://", "x:"]),
    hosts, st.text(characters, max_size=20),
)  # fmt: skip


@settings(derandomize=True)
@given(
    url=links, method=texts | st.sampled_from(["GET\r\nX: y", ""]),
    headers=st.dictionaries(st.binary(max_size=6), st.lists(st.binary(max_size=6), max_size=2), max_size=2),
    body=st.binary(max_size=10), cookies=json_values | st.just({"a": b"b"}), meta=st.dictionaries(texts, json_values),
    cb_kwargs=st.dictionaries(texts, json_values), flags=st.lists(json_values, max_size=2),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1251", "utf-7", "rot13", "idna", "punycode"]),
    dont_filter=json_values, kind=st.sampled_from([Request, JsonRequest, Restless, Raising]),
    callback=st.sampled_from([None, TRAP.item, TRAP.start, TRAP.static, ran.append]),
)  # fmt: skip
def test_each_request_of_a_page_arrives_or_stays(kind: type[Request], **values: Any) -> None:
    try:
        request = kind(**values)
    except Exception:  # the spider's own callback fails then
        return
    targets = diverter(OnSite(), offsite=None)
    targets.spider = TRAP
    dropped = not request.url.startswith(("http://", "https://"))
    entries, here = targets.entries([request])
    assert len(entries) + len(here) + dropped == 1
    for _, body in entries:
        (arrived,) = decode_requests(encode_payload([body]), TRAP)
        assert type(arrived) is kind
        for name in kind.attributes:
            sent, came = getattr(request, name), getattr(arrived, name)
            assert sent == came or not (sent or came), name  # None and False are the same for Scrapy


@pytest.mark.parametrize(
    "link",
    ["http://a.example/\0", "http://a.example/\r\nX: y", "http://a.example\n/", "http://user:pa%3Ass@a.example/",
     "http://b\u00fccher.a.example/\u2603", "http://a.example/?" + "%00" * 30_000, "http://a.example/" + "x" * 100_000,
     "http://a.example/\x7f\x80\u2028", "http://a.example/%2e%2e/%2e%2e/etc/passwd", "HTTP://A.EXAMPLE"],
    ids=lambda link: ascii(link)[:40],
)  # fmt: skip
def test_the_link_of_a_page_is_diverted_as_scrapy_has_it(link: str) -> None:
    request = Request(link)
    ((_, body),), here = diverter(OnSite()).entries([request])
    assert here == []
    (arrived,) = decode_requests(encode_payload([body]), OnSite())
    assert arrived.url == request.url
    assert not {"\0", "\r", "\n"} & set(arrived.url)


def test_a_link_that_is_too_long_stays_and_is_counted() -> None:
    path = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=300_000))
    targets = diverter(OnSite())
    requests = [Request(f"http://a.example/{path}"), Request("http://a.example/2")]
    entries, here = targets.entries(requests)
    assert ([body for _, body in entries], here) == (['"http://a.example/2"'], requests[:1])
    assert targets.stats.get_value("distributed/local/too_large") == 1
