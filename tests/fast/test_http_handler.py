"""The lean handler gives what Scrapy's own gives, of servers kind and unkind, and asks what that asks."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from http_servers import (
    ANSWERS,
    ANSWERS_TO_HEAD,
    OLD,
    OLD_TLS_WARNS,
    SHORT,
    Both,
    Server,
    asynchronous,
    compare,
    outcome,
    path_of,
    sized,
)
from scrapy import Request, signals
from scrapy.exceptions import StopDownload
from scrapy.settings import default_settings
from scrapy.utils.misc import build_from_crawler

from scrapy_distributed.fast import http_connection
from scrapy_distributed.fast.http_handler import HTTPDownloadHandler


@pytest.mark.parametrize("name", ANSWERS)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer(name: str, server: Server) -> None:
    timeout = SHORT if "slow" in name or "without end" in name else 10.0
    request = Request(server.url + path_of(name), meta={"download_timeout": timeout})
    again = Request(server.url + "/sized", meta={"download_timeout": 10.0})
    outcomes = await compare(server, request, again)
    assert outcomes[1][1] == 200  # a bad answer spoils nothing
    EXPECTED.get(name, lambda found: None)(outcomes[0])


@pytest.mark.parametrize("name", ANSWERS_TO_HEAD)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer_to_head(name: str, server: Server) -> None:
    head = Request(server.url + path_of(name), method="HEAD")
    outcomes = await compare(server, head, Request(server.url + "/sized"))
    assert [found[1] for found in outcomes] == [{"nothing here": 204, "not modified": 304}.get(name, 200), 200]
    assert len(set(server.over)) == 1  # its connection goes on


def _is(*expected: Any) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert found[: len(expected)] == expected

    return check


def _body(body: bytes, flags: list[str] | None = None) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert (found[4], found[5]) == (body, flags or [])

    return check


EXPECTED: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "chunked": _body(b"abcde"), "chunked byte by byte": _body(b"0123456789"), "interim": _body(b"after"),
    "until close": _body(b"all there is", ["partial"]), "new lines alone": _body(b"ab\r\n"),
    "too short": _is(http_connection.DataLoss), "no last chunk": _is(http_connection.DataLoss),
    "length written twice": _body(b"ab"), "bad length of chunks": _body(b"ab"), "chunked twice": _body(b"ab"),
    "chunk extension": _body(b"abc"), "new line in a chunk extension": _is(http_connection.DataLoss),
    "nul in a chunk extension": _is(http_connection.DataLoss), "another protocol": _is(http_connection.Failed),
    "a header that is none": _is(http_connection.Failed),
    "bad chunk": _is(http_connection.DataLoss), "not http": _is(http_connection.Failed),
    "two lengths": _is(http_connection.Failed), "long line": _is(http_connection.Failed),
    "nothing": _is(http_connection.NeverReceived), "slow head": _is(http_connection.Timeout),
    "slow body": _is(http_connection.Timeout), "too much": _body(b"abc"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["too short", "no last chunk", "bad chunk", "reset in the body"])
@asynchronous
async def test_what_is_there_is_given_if_a_part_is_enough(name: str, server: Server) -> None:
    [found] = await compare(server, Request(server.url + path_of(name)), DOWNLOAD_FAIL_ON_DATALOSS=False)
    assert (found[4], found[5]) == (b"abc", ["dataloss"])
    [found] = await compare(server, Request(server.url + path_of(name), meta={"download_fail_on_dataloss": False}))
    assert found[5] == ["dataloss"]


@pytest.mark.parametrize(
    "request_",
    [
        Request("http://x/a?b=c&d=%20e#fragment"),
        Request("http://x"),
        Request("http://x?q"),
        Request("http://x/;p?q=1"),
        Request("http://x/café"),
        Request("http://x/sized", method="HEAD"),
        Request("http://x/sized", method="POST", body=b"a=1", headers={"Content-Type": "text/plain"}),
        Request("http://x/sized", method="POST"),
        Request("http://x/sized", method="PUT", body=b"\0\r\n\xff"),
        Request("http://x/sized", method="PATCH", body=b"x"),
        Request("http://x/sized", method="DELETE"),
        Request("http://x/sized", method="OPTIONS"),
        Request("http://x/sized", method="GET", body=b"x"),
        Request("http://x/sized", method="PROPFIND"),
        Request("http://x/sized", headers={"Host": "other.example", "X-Two": ["1", "2"], "Accept": "a"}),
        Request("http://x/sized", headers={"X-Latin": "café".encode("latin-1")}),
        Request("http://x/sized", headers={"X-Bad": b"1\r\nX-Injected: 2"}),
        Request("http://x/sized", headers={"X-Bad\r\nX-Injected": b"2"}),
        Request("http://x/sized", headers={"Connection": "close"}),
        Request("http://x/sized", headers={"Content-Length": "0"}),
        Request("http://x/sized\r\nX-Injected: 1"),
        Request("http://x/sized", method="GET /injected HTTP/1.1\r\n"),
        Request("http://user:secret@x/sized"),
    ],
    ids=lambda request: f"{request.method!r} {request.url} {sorted(request.headers)}",
)  # fmt: skip
@asynchronous
async def test_both_handlers_ask_the_same(request_: Request, server: Server) -> None:
    await compare(
        server, request_.replace(url=request_.url.replace("//x", server.url[5:]).replace("@x", f"@{server.url[7:]}"))
    )
    assert not any("x-injected" in header.lower()[:12] for asked in server.asked for header in asked[2])


@asynchronous
async def test_connections_are_kept_and_used_again(server: Server) -> None:
    outcomes = await compare(server, *[Request(server.url + path) for path in ("/sized", "/chunked", "/204", "/empty")])
    assert [found[1] for found in outcomes] == [200, 200, 204, 200]
    assert len(set(server.over)) == 1


@pytest.mark.parametrize(
    "path", ["/closes", "/old_with_a_length", "/until_close", "/too_much", "/chunked_with_a_length"]
)
@asynchronous
async def test_a_connection_that_can_not_go_on_is_not_used_again(path: str, server: Server) -> None:
    both = Both()
    for _ in range(2):
        assert (await outcome(both.lean, Request(server.url + path)))[1] == 200
    await both.close()
    assert len(set(server.over)) == 2


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("HEAD", True), ("DELETE", True), ("POST", False)])
@asynchronous
async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(
    method: str, again: bool, server: Server
) -> None:
    server.limits["sized"] = 1  # the second request over a connection is read, and gets no answer
    outcomes = await compare(server, Request(server.url + "/sized"), Request(server.url + "/sized", method=method))
    assert outcomes[1][:2] == ((outcomes[0][0], 200) if again else (http_connection.NeverReceived,))
    assert len(server.asked) == (3 if again else 2)


@asynchronous
async def test_a_request_is_sent_again_once_and_no_more(server: Server) -> None:
    server.limits["sized"] = 1
    both = Both()
    await outcome(both.lean, Request(server.url + "/sized"))
    server.limits["sized"] = 0
    assert await outcome(both.lean, Request(server.url + "/sized")) == (http_connection.NeverReceived,)
    await both.close()
    assert len(server.asked) == 3


@asynchronous
async def test_no_server_and_no_such_host(unused_port: int, server: Server) -> None:
    url = f"http://127.0.0.1:{unused_port}/"
    assert await compare(server, Request(url)) == [(http_connection.Refused,)]
    nowhere = Request("http://no-such-host.invalid/", meta={"download_timeout": 10.0})
    assert await compare(server, nowhere) == [(http_connection.UnknownHost,)]


@pytest.mark.parametrize("name", ["large", "large chunks"])
@asynchronous
async def test_sizes_have_limits(name: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url + path_of(name)
    assert await compare(server, Request(url), DOWNLOAD_MAXSIZE=1000) == [(http_connection.Cancelled,)]
    assert await compare(server, Request(url, meta={"download_maxsize": 1000})) == [(http_connection.Cancelled,)]
    caplog.clear()
    [found] = await compare(server, Request(url, meta={"download_warnsize": 1000}))
    assert found[1] == 200
    assert sum("warn size (1000)" in record.message for record in caplog.records) == 2 + (OLD and name == "large")


@pytest.mark.parametrize("signal", [signals.headers_received, signals.bytes_received], ids=["headers", "bytes"])
@pytest.mark.parametrize("fail", [True, False])
@asynchronous
async def test_a_receiver_of_a_signal_may_stop_the_download(signal: Any, fail: bool, server: Server) -> None:
    seen: list[Any] = []
    both = Both()

    def stop(request: Request, **named: Any) -> None:
        seen.append({key: named.get(key) for key in ("body_length", "data")})
        raise StopDownload(fail=fail)

    both.crawler.signals.connect(stop, signal)
    found = []
    for handler in (both.stock, both.lean):
        request = Request(server.url + "/sized")
        try:
            response = await handler.download_request(request)
        except StopDownload as stopped:
            assert fail
            response = stopped.response
        found.append((response.status, response.body, response.flags, dict(response.headers), type(response)))
    both.crawler.signals.disconnect(stop, signal)
    await both.close()
    assert found[0] == found[1]
    assert found[1][2] == ["download_stopped"]
    assert seen[0] == seen[1]


@asynchronous
async def test_an_error_in_a_receiver_does_not_end_the_download(server: Server) -> None:
    both = Both()

    def raises() -> None:
        raise RuntimeError("no")

    both.crawler.signals.connect(raises, signals.headers_received)
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    await both.close()


@OLD_TLS_WARNS
@asynchronous
async def test_https_as_scrapy_does_it_by_default(tls_server: Server) -> None:
    url = tls_server.url.replace("127.0.0.1", "localhost")
    outcomes = await compare(tls_server, Request(url + "/sized"), Request(url + "/chunked"))
    assert [found[1] for found in outcomes] == [200, 200]
    assert len(set(tls_server.over)) == 1


@OLD_TLS_WARNS
@asynchronous
async def test_https_with_a_server_that_speaks_no_tls(server: Server) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        assert await compare(server, Request(f"https://127.0.0.1:{port}/")) == [(http_connection.NeverReceived,)]


@OLD_TLS_WARNS
@asynchronous
async def test_what_is_special_is_left_to_scrapy(server: Server, tls_server: Server) -> None:
    both = Both(DOWNLOADER_CLIENT_TLS_CIPHERS="HIGH")
    assert (await outcome(both.lean, Request("http://127.0.0.1:1/x", meta={"proxy": server.url})))[1] == 200
    assert server.asked[-1][1] == "http://127.0.0.1:1/x"
    assert both.lean._idle == {}
    assert (await outcome(both.lean, Request(tls_server.url + "/sized")))[1] == 200
    assert both.lean._idle == {}
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert len(both.lean._idle) == 1
    await both.close()


@asynchronous
async def test_limits_of_the_spider_are_left_to_scrapy(server: Server) -> None:
    both = Both()
    both.crawler.spider.download_maxsize = 5
    lean = build_from_crawler(HTTPDownloadHandler, both.crawler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Scrapy's own, of the attribute
        assert await outcome(lean, Request(server.url + "/sized")) == (http_connection.Cancelled,)
    await lean.close()
    await both.close()


@asynchronous
async def test_what_nobody_here_can_do_is_refused_in_words(server: Server) -> None:
    both = Both(DOWNLOAD_HANDLERS_BASE={**default_settings.DOWNLOAD_HANDLERS_BASE, "http": "no.such.Handler"})
    with pytest.raises(RuntimeError, match=r"needs no\.such\.Handler, which can't run here: No module named 'no'"):
        await both.lean.download_request(Request("http://127.0.0.1/", meta={"proxy": server.url}))
    await both.close()


@asynchronous
async def test_idle_connections_are_few_and_do_not_grow_old(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrapy_distributed.fast.http_handler.IDLE_SECONDS", 0.1)
    both = Both(CONCURRENT_REQUESTS_PER_DOMAIN=2)
    requests = [Request(server.url + "/in_pieces") for _ in range(5)]
    found = await asyncio.gather(*(outcome(both.lean, request) for request in requests))
    assert [one[1] for one in found] == [200] * 5
    [idle] = both.lean._idle.values()
    assert len(idle) == 2
    await asyncio.sleep(0.3)
    assert both.lean._idle == {}
    await both.close()


@asynchronous
async def test_a_request_that_nobody_waits_for_gives_up_its_connection(server: Server) -> None:
    both = Both()
    task = asyncio.ensure_future(both.lean.download_request(Request(server.url + "/slow_body")))
    while not server.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert server.over == [1, 2]
    await both.close()


@asynchronous
async def test_a_connection_is_not_used_again_while_a_body_is_still_sent(server: Server) -> None:
    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b"early"))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    both = Both()
    async with await asyncio.start_server(answer_early, "127.0.0.1", 0) as early:
        url = f"http://127.0.0.1:{early.sockets[0].getsockname()[1]}/"
        found = await outcome(both.lean, Request(url, method="POST", body=b"x" * 20_000_000))
    assert found[4] == b"early"
    assert not any(both.lean._idle.values())
    await both.close()


@asynchronous
async def test_a_head_has_a_limit(server: Server) -> None:
    both = Both()
    assert await outcome(both.lean, Request(server.url + "/endless_head")) == (http_connection.Failed,)
    await both.close()


@asynchronous
async def test_a_local_address_is_used(server: Server) -> None:
    both = Both(DOWNLOAD_BIND_ADDRESS="127.0.0.1")
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert (await outcome(both.lean, Request(server.url + "/sized", meta={"bindaddress": "127.0.0.2"})))[1] == 200
    assert sorted(origin.local[0] for origin in both.lean._idle if origin.local) == ["127.0.0.1", "127.0.0.2"]
    await both.close()
