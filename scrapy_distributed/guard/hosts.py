"""The addresses that a host name leads to, as the download handlers of a crawl find them; and which are one machine."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeAlias

from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer  # type: ignore[import-untyped]

Address: TypeAlias = IPv4Address | IPv6Address

KEPT = 10_000  # names
SECONDS = 10.0  # that what was found is used for


class Addresses:
    """Asks the resolver that Scrapy has given to the reactor: it remembers what it has found for the whole crawl, so
    the handlers connect to what is found here. Without a reactor, the one of the system."""

    def __init__(self, *, with_reactor: bool) -> None:
        self._with_reactor = with_reactor
        self._known: dict[str, tuple[float, frozenset[Address]]] = {}

    async def of(self, host: str, *, must: bool = False) -> frozenset[Address]:
        """Raises what the download handlers raise for an unknown host, if there *must* be an address."""
        if (address := literal(host)) is not None:
            return frozenset((address,))
        found_at, found = self._known.get(host, (0.0, frozenset()))
        if not found or time.monotonic() - found_at > SECONDS:
            found = frozenset(filter(None, map(literal, await self._look_up(host))))
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[host] = time.monotonic(), found
        if must and not found:
            from scrapy_distributed.fast.http_connection import UnknownHost

            raise UnknownHost(f"DNS lookup of {host} has no result")
        return found

    async def _look_up(self, host: str) -> list[str]:
        try:
            host.encode("idna")
        except UnicodeError:  # a label too long, say: Twisted's resolver would never answer
            return []
        if not self._with_reactor:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError:
                return []
            return [str(address[0]) for *_, address in found]
        from twisted.internet import reactor

        loop: Any = reactor
        receiver = _Receiver()
        loop.nameResolver.resolveHostName(receiver, host)
        return await maybe_deferred_to_future(receiver.done)


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self.done: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolution: Any) -> None:  # noqa: N802
        pass

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        self._found.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802
        self.done.callback(self._found)


def literal(host: str) -> Address | None:
    """The address that *host* is, in any spelling that connects to it: ``127.1``, ``0x7f000001``, ``::ffff:7f00:1``."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host.rstrip(".")))
        except (OSError, ValueError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


def on_one_machine(some: Iterable[Address], others: Iterable[Address]) -> bool:
    """Whether one of *some* leads where one of *others* leads, be it by another address of this machine."""
    some, others = frozenset(some), frozenset(others)
    return bool(some & others) or (any(map(is_own, some)) and any(map(is_own, others)))


@lru_cache(maxsize=KEPT)
def is_own(address: Address) -> bool:
    """Whether *address* is this machine's: to no other can a socket be bound."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True
