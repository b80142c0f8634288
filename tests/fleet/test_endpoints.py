"""Where a connection to a node goes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.web.client import URI

from scrapy_distributed.fleet.connection import Endpoints


def endpoint(url: str, reactor: Any) -> Any:
    return Endpoints(reactor, seconds=7).endpointForURI(URI.fromBytes(url.encode()))


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://127.0.0.1:6800/", "127.0.0.1"), ("http://[::1]:6800/x", "::1"), ("http://[fe80::1:2]:6800", "fe80::1:2")],
)
def test_an_address_is_no_name_to_be_looked_up(url: str, address: str) -> None:
    reactor: Any = MemoryReactorClock()
    endpoint(url, reactor).connect(Factory())
    ((host, port, _, timeout, _),) = reactor.tcpClients
    assert (host, port, timeout) == (address, 6800, 7)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://10.0.0.1:6800/", TCP4ClientEndpoint),
        ("https://[::1]:6800/", TCP6ClientEndpoint),
        ("https://node1:6800/", HostnameEndpoint),
    ],
)
def test_tls_to_each_of_them(url: str, kind: type) -> None:
    wrapped = endpoint(url, MemoryReactorClock())
    assert isinstance(wrapped._wrappedEndpoint, kind)


def test_a_name_is_looked_up() -> None:
    assert isinstance(endpoint("http://node1:6800/", MemoryReactorClock()), HostnameEndpoint)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"b'ftp': expected http or https"):
        endpoint("ftp://node1/", MemoryReactorClock())
