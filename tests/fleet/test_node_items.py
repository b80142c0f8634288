"""The items of a job on their way from a node to a file: all of them, or the right one to blame."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd, Fault, FileFault
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone  # type: ignore[attr-defined]  # named in its documentation
from until import until

from scrapy_distributed.errors import (
    NodeAmbiguousError,
    NodeError,
    NodeItemsError,
    NodeRefusedError,
    NodeUnauthorizedError,
    NodeUnreachableError,
)
from scrapy_distributed.fleet.connection import PIECE_BYTES
from scrapy_distributed.fleet.node import LEAST_BYTES_A_SECOND, Node, NodeAddress

ITEMS = b'{"name": "a"}\n' * 20_000  # in several pieces
PATH = "p/s.receipts/j.items"
SECONDS = 10.0


@pytest.fixture
def fake() -> Iterator[FakeScrapyd]:
    fake = FakeScrapyd(username="user-x", password="s3cr3t", files={PATH: ITEMS}).listen()
    yield fake
    pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture
def node(fake: FakeScrapyd) -> Iterator[Node]:
    node = Node(address=fake.address, deadline_seconds=5)
    yield node
    pytest_twisted.blockon(Deferred.fromCoroutine(node.close()))


async def fetch(node: Node, file: Any, content: bytes = ITEMS) -> None:
    """What should be there is *content*."""
    await node.items("p", "s", "j", file, size=len(content), digest=sha256(content).hexdigest())


async def failure_of(node: Node, content: bytes = ITEMS) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await fetch(node, io.BytesIO(), content)
    message = str(caught.value)
    assert message.startswith(f"{node.name}: ")
    assert "user-x" not in message
    assert len(message) < 400
    return caught.value


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("content", [b"", b"x", ITEMS], ids=["nothing", "a byte", "many"])
@pytest.mark.parametrize("fault", [None, FileFault.CHUNKED])
async def test_all_of_it_comes(
    fake: FakeScrapyd, node: Node, tmp_path: Path, content: bytes, fault: FileFault | None
) -> None:
    fake.files[PATH] = content
    if fault:
        fake.file_faults[PATH] = fault
    with open(tmp_path / "items", "wb") as file:
        file.write(b"before ")
        await fetch(node, file, content)
    assert (tmp_path / "items").read_bytes() == b"before " + content
    assert fake.requests == [f"GET logs/{PATH}"]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FileFault.SHORTER, "279,999 bytes, expected 280,000"),
        (FileFault.LONGER, "more than 280,000 bytes"),
        (FileFault.OTHER, "SHA-256 [0-9a-f]{12}..., expected [0-9a-f]{12}..."),
        (None, "HTTP 404"),
    ],
)
async def test_other_items_than_the_receipt_tells_of(
    fake: FakeScrapyd, node: Node, fault: FileFault | None, words: str
) -> None:
    """The job's fault: the attempt does not count."""
    if fault:
        fake.file_faults[PATH] = fault
    else:
        fake.files.clear()
    error = await failure_of(node)
    assert type(error) is NodeItemsError
    with pytest.raises(NodeRefusedError, match=rf"not the one that its receipt tells of \({words}\): has its disk"):
        raise error
    fake.files, fake.file_faults = {PATH: ITEMS}, {}
    await fetch(node, io.BytesIO())  # nothing of the fault is left


@pytest_twisted.ensureDeferred
async def test_where_nothing_is_expected_nothing_may_be(fake: FakeScrapyd, node: Node) -> None:
    assert "more than 0 bytes" in str(await failure_of(node, b""))
    assert "280,000 bytes, expected 280,001" in str(await failure_of(node, ITEMS + b"x"))


@pytest_twisted.ensureDeferred
async def test_no_more_is_written_than_is_expected(fake: FakeScrapyd, node: Node) -> None:
    fake.files[PATH] = ITEMS * 20
    file = io.BytesIO()
    with pytest.raises(NodeItemsError, match="more than 280,000 bytes"):
        await fetch(node, file)
    assert ITEMS.startswith(file.getvalue())


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (FileFault.CUT, NodeAmbiguousError, "broke before a complete answer"),
        (FileFault.CHUNKED_CUT, NodeAmbiguousError, "broke before a complete answer"),
        (FileFault.COMPRESSED, NodeAmbiguousError, "compressed answer .*is there a proxy"),
        (Fault.DROP, NodeAmbiguousError, "broke before a complete answer"),
        (Fault.SERVER_ERROR, NodeAmbiguousError, "HTTP 500"),
        (Fault.UNAUTHORIZED, NodeUnauthorizedError, "set username and password"),
        (Fault.FORBIDDEN, NodeRefusedError, "HTTP 403"),
        (Fault.REDIRECT, NodeRefusedError, "redirect"),
    ],
)
async def test_what_is_no_fault_of_the_job(
    fake: FakeScrapyd, node: Node, fault: Fault | FileFault, kind: type[NodeError], words: str
) -> None:
    if isinstance(fault, FileFault):
        fake.file_faults[PATH] = fault
    else:
        fake.faults["logs"] = fault
    error = await failure_of(node)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error
    fake.faults, fake.file_faults = {}, {}
    await fetch(node, io.BytesIO())


@pytest_twisted.ensureDeferred
async def test_the_page_of_an_error_is_not_written(fake: FakeScrapyd, node: Node) -> None:
    file = io.BytesIO()
    for fault in (Fault.SERVER_ERROR, Fault.FORBIDDEN, Fault.NOT_FOUND):
        fake.faults["logs"] = fault
        with pytest.raises(NodeError):
            await fetch(node, file, fault.value[1])
    assert file.getvalue() == b""


@pytest_twisted.ensureDeferred
async def test_nobody_is_there(fake: FakeScrapyd) -> None:
    node = Node(address=NodeAddress(name="n", url="http://nosuch.invalid:6800"))
    assert type(await failure_of(node)) is NodeUnreachableError
    node = Node(address=NodeAddress(name="n", url=fake.url, username="user-x", password="wrong"))
    assert type(await failure_of(node)) is NodeUnauthorizedError
    await node.close()


@pytest_twisted.ensureDeferred
async def test_a_path_before_the_logs_and_names_that_are_quoted(fake: FakeScrapyd) -> None:
    address = NodeAddress(name="n", url=f"{fake.url}/some/path", username=fake.username, password=fake.password)
    node = Node(address=address)
    with pytest.raises(NodeItemsError):
        await node.items("my p", "a/b?", "j", io.BytesIO(), size=1, digest="")
    assert fake.requests == ["GET some/path/logs/my%20p/a%2Fb%3F.receipts/j.items"]
    await node.close()


class Saying(Protocol):
    """Answers whatever it hears with *content*, and no length, and goes."""

    content = b""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        assert self.transport
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.content)
        self.transport.loseConnection()


@pytest_twisted.ensureDeferred
async def test_what_ends_with_its_connection_may_have_been_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    port = reactor.listenTCP(0, Factory.forProtocol(Saying), interface="127.0.0.1")  # type: ignore[attr-defined]
    node = Node(address=NodeAddress(name="n", url=f"http://127.0.0.1:{port.getHost().port}"))
    found = []
    for content in (ITEMS, ITEMS[:-1], ITEMS[:-1] + b"?", ITEMS + b"?"):
        monkeypatch.setattr(Saying, "content", content)
        try:
            found.append(await fetch(node, io.BytesIO()))
        except NodeError as error:
            found.append(type(error))
    assert found == [None, NodeAmbiguousError, NodeItemsError, NodeItemsError]
    await port.stopListening()


# Time


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("fault", [FileFault.HANG, FileFault.TRICKLE])
async def test_a_node_that_never_finishes(fake: FakeScrapyd, fault: FileFault) -> None:
    node = Node(address=fake.address, deadline_seconds=0.5)
    fake.file_faults[PATH] = fault
    error = await failure_of(node)
    assert type(error) is NodeAmbiguousError
    assert "no complete answer from" in str(error)
    assert "within 0.5 s" in str(error)

    async def ended() -> bool:
        return all(request._disconnected for request in fake._hanging)

    await until(ended)
    await node.close()


class Line:
    """A client whose answer comes when the test says so."""

    code = 200

    def __init__(self) -> None:
        self.head: Deferred[Line] = Deferred()
        self.body: Any = None
        self.aborted = False

    def request(self, *args: Any, **kwargs: Any) -> Deferred[Line]:
        return self.head

    def deliverBody(self, body: Any) -> None:  # noqa: N802  # Twisted's name
        self.body = body
        body.makeConnection(SimpleNamespace(loseConnection=self._lose))

    def _lose(self) -> None:
        self.aborted = True


class Call:
    """A call for *content* at a node of which a test plays the clock and the line. The head of the answer comes
    *head_after* seconds."""

    def __init__(self, content: bytes, file: Any = None, *, head_after: float = 0.0) -> None:
        self.clock, self.line, self.file, self.ended = Clock(), Line(), io.BytesIO(), []
        address = NodeAddress(name="n", url="http://node.invalid:6800")
        self.node = Node(
            address=address, deadline_seconds=SECONDS, client=cast(HTTPClient, self.line), clock=self.clock
        )
        call = Deferred.fromCoroutine(fetch(self.node, file or self.file, content))
        call.addBoth(self.ended.append)
        self.call = call
        self.clock.advance(head_after)
        self.line.head.callback(self.line)

    def comes(self, data: bytes, after: float = 0.0) -> None:
        self.clock.advance(after)
        self.line.body.dataReceived(data)

    def failure(self) -> Exception:
        [ended] = self.ended
        assert isinstance(ended, Failure)
        assert self.line.aborted
        assert self.clock.getDelayedCalls() == []
        return cast(Exception, ended.value)


STRIDE = int(SECONDS * LEAST_BYTES_A_SECOND)


def test_what_comes_steadily_may_take_any_time() -> None:
    content = b"x" * STRIDE * 100
    call = Call(content)
    for _ in range(1000):
        call.comes(content[: STRIDE // 10], after=0.9 * SECONDS / 10)
    call.line.body.connectionLost(Failure(ResponseDone()))
    assert call.ended == [None]
    assert call.file.getvalue() == content
    assert not call.line.aborted
    assert call.clock.getDelayedCalls() == []


def test_a_late_head_takes_nothing_from_the_time_of_what_follows() -> None:
    call = Call(b"x" * STRIDE * 2, head_after=0.9 * SECONDS)
    call.comes(b"x" * STRIDE, after=0.9 * SECONDS)
    call.comes(b"x" * STRIDE, after=0.9 * SECONDS)
    assert call.ended == []


def test_what_comes_too_slowly_ends() -> None:
    call = Call(b"x" * STRIDE * 100)
    for _ in range(9):
        call.comes(b"x" * (STRIDE // 10), after=1.01 * SECONDS / 10)
    assert call.ended == []
    call.clock.advance(SECONDS / 10)
    assert isinstance(call.failure(), NodeAmbiguousError)
    call.comes(b"x" * STRIDE)  # what had been read from the line before
    assert len(call.file.getvalue()) == 9 * (STRIDE // 10)


def test_what_came_fast_and_stops_ends() -> None:
    call = Call(b"x" * STRIDE * 100)
    for _ in range(50):
        call.comes(b"x" * STRIDE, after=0.01)
    call.clock.advance(SECONDS - 0.1)
    assert call.ended == []
    call.clock.advance(0.2)
    assert isinstance(call.failure(), NodeAmbiguousError)


def test_pieces_of_a_byte_cost_too_much_time() -> None:
    size = 100_000
    call = Call(b"x" * size)
    began = time.process_time()
    for _ in range(size // PIECE_BYTES + 1):
        call.comes(b"x")
    assert isinstance(call.failure(), NodeAmbiguousError)
    assert time.process_time() - began < 1


def test_a_small_file_may_come_in_any_pieces() -> None:
    call = Call(ITEMS[:1000])
    for number in range(1000):
        call.comes(ITEMS[number : number + 1])
    call.line.body.connectionLost(Failure(ResponseDone()))
    assert call.ended == [None]


# Our side


class Full(io.BytesIO):
    """A disk with room for *room* bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_nobodys_fault_but_ours() -> None:
    call = Call(ITEMS, Full(100_000))
    call.comes(ITEMS[:60_000])
    assert call.ended == []
    call.comes(ITEMS[60_000:120_000])
    error = call.failure()
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


def test_a_file_that_is_closed_says_so_itself() -> None:
    file = io.BytesIO()
    file.close()
    call = Call(ITEMS, file)
    call.comes(ITEMS)
    assert isinstance(call.failure(), ValueError)


@pytest_twisted.ensureDeferred
async def test_a_full_disk_ends_the_connection(fake: FakeScrapyd, node: Node) -> None:
    fake.file_faults[PATH] = FileFault.HANG
    with pytest.raises(OSError, match="No space left on device"):
        await fetch(node, Full(1000))

    async def ended() -> bool:
        return all(request._disconnected for request in fake._hanging)

    await until(ended)
    fake.file_faults.clear()
    await fetch(node, io.BytesIO())


def test_a_call_that_is_cancelled_ends_its_connection() -> None:
    call = Call(ITEMS)
    call.comes(ITEMS[:1000])
    call.call.cancel()
    assert isinstance(call.failure(), NodeAmbiguousError)
    call = Call(ITEMS)
    call.comes(ITEMS[:1000])
    Deferred.fromCoroutine(call.node.close())
    assert isinstance(call.failure(), NodeAmbiguousError)


@pytest_twisted.ensureDeferred
async def test_many_at_once(fake: FakeScrapyd, node: Node) -> None:
    fake.file_faults[PATH] = FileFault.HANG
    slow = Deferred.fromCoroutine(fetch(node, io.BytesIO()))

    async def begun() -> bool:
        return bool(fake._hanging)

    await until(begun)
    fake.file_faults.clear()
    files = [io.BytesIO() for _ in range(12)]
    for call in [Deferred.fromCoroutine(fetch(node, file)) for file in files]:
        await call
    assert [file.getvalue() for file in files] == [ITEMS] * 12
    assert not slow.called
    slow.cancel()
    with pytest.raises(NodeAmbiguousError):
        await slow
