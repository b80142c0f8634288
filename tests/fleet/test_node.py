"""Faults of a node, and what leaves ``Node`` then: the right exception, in words, and never a credential."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest
import pytest_twisted
from certificate import make
from fake_scrapyd import FakeScrapyd, Fault
from hypothesis import given
from hypothesis import strategies as st
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.server import Site

from scrapy_distributed.errors import (
    ConfigError,
    NodeAmbiguousError,
    NodeDownError,
    NodeError,
    NodeRefusedError,
    NodeUnauthorizedError,
    NodeUnreachableError,
    ScrapydRefusedError,
)
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.wire.job import MAX_ARGUMENTS_BYTES, RESERVED_KEYS, check_job
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES

SECRET = "s3cr3t-Pa55"


class Shouting(Protocol):
    """Answers whatever it hears as a mail server would."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        assert self.transport
        self.transport.write(b"220 ready for mail\r\n")
        self.transport.loseConnection()


@pytest.fixture
def fake() -> Iterator[FakeScrapyd]:
    fake = FakeScrapyd(username="user-x", password=SECRET, projects={"p": {"1": ["s"]}}).listen()
    yield fake
    pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture
def node(fake: FakeScrapyd) -> Iterator[Node]:
    node = Node(address=fake.address, deadline_seconds=5)
    yield node
    pytest_twisted.blockon(Deferred.fromCoroutine(node.close()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def failure_of(node: Node, *, post: bool = True) -> NodeError:
    call = node.schedule("p", "s", jobid="j") if post else node.status("j")
    with pytest.raises(NodeError) as caught:
        await call
    message = str(caught.value)
    assert message.startswith(f"{node.name}: ")
    assert SECRET not in message
    assert "user-x" not in message
    assert len(message) < 600
    return caught.value


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("post", [True, False])
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault.SERVER_ERROR, NodeAmbiguousError, "HTTP 500, expected 200: see the log of"),
        (Fault.BAD_GATEWAY_AFTER, NodeAmbiguousError, "HTTP 502"),
        (
            Fault.UNAUTHORIZED,
            NodeUnauthorizedError,
            "set username and password for this node in scrapy.cfg, .netrc or its URL",
        ),
        (Fault.FORBIDDEN, NodeRefusedError, "HTTP 403: ask whoever runs"),
        (Fault.NOT_FOUND, NodeRefusedError, "HTTP 404.: is this a Scrapyd"),
        (Fault.TOO_LARGE, NodeRefusedError, "HTTP 413: .*size limit"),
        (Fault.REDIRECT, NodeRefusedError, "redirect .HTTP 302.: give the node by the URL"),
        (Fault.HTML, NodeAmbiguousError, "answered HTML, expected JSON: is this a Scrapyd"),
        (Fault.TEXT, NodeAmbiguousError, "5 bytes that are no JSON"),
        (Fault.LIST, NodeAmbiguousError, "without a status of Scrapyd: is this a Scrapyd"),
        (Fault.NO_STATUS, NodeAmbiguousError, "without a status of Scrapyd"),
        (Fault.EMPTY_OK, NodeAmbiguousError, "answered nothing for '(jobid|currstate)', expected a string"),
        (
            Fault.TRACEBACK,
            ScrapydRefusedError,
            "fake1: twisted.web.error.Error: 200 project 'nope' not found: deploy it",
        ),
        (Fault.DROP, NodeAmbiguousError, "the connection to .* broke before a complete answer"),
        (Fault.DROP_AFTER, NodeAmbiguousError, "the connection to .* broke before a complete answer"),
    ],
)
async def test_faults(
    fake: FakeScrapyd, node: Node, fault: Fault, kind: type[NodeError], words: str, post: bool
) -> None:
    fake.faults["*"] = fault
    error = await failure_of(node, post=post)
    assert type(error) is kind
    with pytest.raises(NodeError, match=words):
        raise error
    fake.faults.clear()
    assert await node.schedule("p", "s", jobid="again") == "again"  # nothing of the fault is left


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AFTER, Fault.HALF_A_BODY_THEN_HANG])
async def test_a_node_that_never_finishes(fake: FakeScrapyd, fault: Fault) -> None:
    node = Node(address=fake.address, deadline_seconds=0.2)
    fake.faults["*"] = fault
    error = await failure_of(node)
    await node.close()
    assert type(error) is NodeAmbiguousError
    assert "no complete answer from" in str(error)
    assert "within 0.2 s" in str(error)
    assert [job.id for job in fake.jobs] == (["j"] if fault.carries_out else [])


def test_the_deadline_by_a_given_client_and_clock() -> None:
    clock, fake = Clock(), FakeScrapyd(faults={"status.json": Fault.HANG})
    node = Node(
        address=NodeAddress(name="n", url="http://node.invalid:6800"),
        deadline_seconds=7,
        client=cast(HTTPClient, StubTreq(fake)),
        clock=clock,
    )
    call = Deferred.fromCoroutine(node.status("j"))
    clock.advance(6.9)
    assert not call.called
    clock.advance(0.2)
    errors: list[Failure] = []
    call.addErrback(errors.append)
    assert errors[0].check(NodeAmbiguousError)
    assert "no complete answer from http://node.invalid:6800 within 7 s" in errors[0].getErrorMessage()
    assert clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_a_slow_answer_within_the_deadline(fake: FakeScrapyd, node: Node) -> None:
    fake.delay_seconds = 0.1
    assert await node.status("j") is None


@pytest_twisted.ensureDeferred
async def test_a_post_is_sent_once_when_the_line_drops(fake: FakeScrapyd, node: Node) -> None:
    await node.status("j")  # a kept connection, which Twisted would try again for a GET
    fake.faults["schedule.json"] = Fault.DROP_AFTER
    await failure_of(node)
    assert [job.id for job in fake.jobs] == ["j"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_nobody_listens(host: str) -> None:
    address = NodeAddress(name="n", url=f"http://{host}:{free_port()}", username="user-x", password=SECRET)
    error = await failure_of(Node(address=address))
    assert type(error) is NodeDownError
    assert f"connection refused at http://{host}:" in str(error)


@pytest_twisted.ensureDeferred
@pytest.mark.skipif(sys.platform != "linux", reason="leans on how Linux treats a full backlog")
async def test_a_connection_that_is_never_made() -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        error = await failure_of(Node(address=NodeAddress(name="n", url=url), deadline_seconds=0.3))
    assert type(error) is NodeUnreachableError
    assert f"no connection to {url} within 0.3 s: is the host up" in str(error)


@pytest_twisted.ensureDeferred
async def test_no_such_host() -> None:
    error = await failure_of(Node(address=NodeAddress(name="n", url="http://nosuch.invalid:6800"), deadline_seconds=60))
    assert type(error) is NodeUnreachableError
    assert "check its spelling" in str(error)


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_looked_up_in_time_is_not_said_to_be_wrong() -> None:
    url = f"http://localhost:{free_port()}"
    error = await failure_of(Node(address=NodeAddress(name="n", url=url), deadline_seconds=0))
    assert type(error) is NodeUnreachableError
    assert f"no connection to {url} within 0 s" in str(error)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "http://127.0.0.1:x", "nonsense"])
async def test_an_url_that_no_one_checked(url: str) -> None:
    error = await failure_of(Node(address=NodeAddress(name="n", url=url)))
    assert type(error) is NodeUnreachableError


@pytest_twisted.ensureDeferred
async def test_https_to_a_node_without_tls() -> None:
    # A Scrapyd waits for the end of a line. Whether the random bytes of a greeting have one is a matter of luck (then
    # it answers in plain words), so here is something that always waits. That nothing was sent can't be known.
    port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"https://127.0.0.1:{port.getHost().port}"
    error = await failure_of(Node(address=NodeAddress(name="n", url=url), deadline_seconds=0.5))
    await port.stopListening()
    assert type(error) is NodeAmbiguousError
    assert "does it speak https?" in str(error)


@pytest_twisted.ensureDeferred
async def test_https_to_something_that_answers_in_plain_words() -> None:
    port = reactor.listenTCP(0, Factory.forProtocol(Shouting), interface="127.0.0.1")  # type: ignore[attr-defined]
    error = await failure_of(Node(address=NodeAddress(name="n", url=f"https://127.0.0.1:{port.getHost().port}")))
    await port.stopListening()
    assert type(error) is NodeUnreachableError
    assert "use http if it has none" in str(error)


@pytest_twisted.ensureDeferred
async def test_http_to_something_that_is_no_http() -> None:
    port = reactor.listenTCP(0, Factory.forProtocol(Shouting), interface="127.0.0.1")  # type: ignore[attr-defined]
    error = await failure_of(Node(address=NodeAddress(name="n", url=f"http://127.0.0.1:{port.getHost().port}")))
    await port.stopListening()
    assert type(error) is NodeAmbiguousError


@pytest_twisted.ensureDeferred
async def test_ipv6_and_a_path_before_the_endpoints() -> None:
    fake = FakeScrapyd()
    port = reactor.listenTCP(0, Site(fake), interface="::1")  # type: ignore[attr-defined]
    node = Node(address=NodeAddress(name="n", url=f"http://[::1]:{port.getHost().port}"))
    assert await node.status("j") is None
    prefixed = Node(address=NodeAddress(name="n", url=f"http://[::1]:{port.getHost().port}/some/path"))
    with pytest.raises(NodeRefusedError, match="404"):
        await prefixed.status("j")
    assert fake.requests[-1] == "GET some/path/status.json"
    await node.close()
    await prefixed.close()
    await port.stopListening()


def test_no_credential_in_what_is_shown() -> None:
    address = NodeAddress(name="n", url="http://h:1", username="user-x", password=SECRET)
    assert repr(address) == "NodeAddress(name='n', url='http://h:1')"


@pytest_twisted.ensureDeferred
async def test_nothing_is_sent_that_would_wedge_the_node(fake: FakeScrapyd, node: Node) -> None:
    longest = "x" * (MAX_ARGUMENT_BYTES - len("key="))
    with pytest.raises(ConfigError, match="'key': 131072 bytes with its name, at most 131071 can travel"):
        await node.schedule("p", "s", jobid="j", settings={"key": longest + "x"})
    with pytest.raises(ConfigError, match="131072 bytes"):
        await node.schedule("p", "s", jobid="j", args={"key": longest[:-1] + "é"})
    assert fake.requests == []
    await node.schedule("p", "s", jobid="j", settings={"key": longest}, args={"key": longest})
    assert fake.jobs[0].settings == fake.jobs[0].args == {"key": longest}


@pytest.mark.parametrize(
    ("jobid", "settings", "args", "words"),
    [
        ("a/b", {}, {}, "job id 'a/b'"),
        ("", {}, {}, "job id ''"),
        ("a b", {}, {}, "job id"),
        ("é", {}, {}, "job id"),
        ("a\n", {}, {}, "job id"),
        ("x" * 201, {}, {}, "job id"),
        ("j", {"A": "a\0b"}, {}, "setting 'A': it holds a NUL byte"),
        ("j", {}, {"a\0": ""}, "NUL byte"),
        ("j", {}, {"a": "\ud800"}, "spider argument 'a': its value can't be encoded"),
        ("j", {"": "x"}, {}, "must not be empty"),
        ("j", {}, {"a=b": "x"}, "no '='"),
        ("j", {chr(65 + n): "x" * 131_000 for n in range(8)}, {}, "at most 1000000 can travel"),
    ],
)
def test_refused_jobs(jobid: str, settings: dict[str, str], args: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_job(jobid, settings, args)


@pytest.mark.parametrize("key", sorted(RESERVED_KEYS))
def test_reserved_keys(key: str) -> None:
    for settings, args in (({key: "x"}, {}), ({}, {key: "x"})):
        with pytest.raises(ConfigError, match=f"'{key}': Scrapyd uses this name itself"):
            check_job("j", settings, args)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5))
def test_whatever_passes_fits_on_a_command_line(args: dict[str, str]) -> None:
    try:
        check_job("j", {}, args)
    except ConfigError:
        return
    encoded = [f"{key}={value}".encode() for key, value in args.items()]
    assert all(len(one) <= MAX_ARGUMENT_BYTES and b"\0" not in one for one in encoded)
    assert sum(map(len, encoded)) <= MAX_ARGUMENTS_BYTES


class _Status(BaseHTTPRequestHandler):
    """``status.json`` for who has the password. In a thread: Twisted 25 can't serve TLS with pyOpenSSL 26."""

    asked = 0

    def do_GET(self) -> None:
        _Status.asked += 1
        expected = "Basic " + b64encode(f"user-x:{SECRET}".encode()).decode()
        body = b'{"status": "ok", "currstate": "running"}'
        self.send_response(200 if self.headers["Authorization"] == expected else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        pass


@pytest.fixture
def tls_node(tmp_path: Path) -> Iterator[tuple[NodeAddress, Path]]:
    """A node with a certificate for ``localhost`` that nobody knows, and the file that makes it known."""
    served, known = make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Status) as server:
        server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a failed handshake is wanted here
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"https://localhost:{server.server_port}"
        yield NodeAddress(name="n", url=url, username="user-x", password=SECRET), known
        server.shutdown()
        thread.join()


@pytest_twisted.ensureDeferred
async def test_https(tls_node: tuple[NodeAddress, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, certificate = tls_node
    error = await failure_of(Node(address=address))
    assert type(error) is NodeUnreachableError
    assert "certificate verify failed" in str(error)
    assert str(error).endswith("name the file of that certificate in the environment: SSL_CERT_FILE=/path/ca.pem")
    assert _Status.asked == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    node = Node(address=address)
    assert await node.status("j") == "running"
    await node.close()
