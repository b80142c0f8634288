"""No request of a crawl reaches a Scrapyd of its fleet: whoever can post there can run code there.

A website needs no way into the network of the nodes for that, as the crawlers are in it: a form that a spider posts may
be answered by a redirect to ``http://127.0.0.1:6800/addversion.json?egg=...``, and a 307 keeps method and body.

The rule: nothing goes to a port that a node has, whatever the host is called. So no name has to be looked up, and none
can be made to lead elsewhere later. Sites share the ports 80 and 443 with nodes behind a proxy; there a host is a node
if it has a node's name or address.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Awaitable, Iterable
from configparser import Error as ConfError
from contextlib import suppress
from functools import lru_cache
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import ParseResult, SplitResult, urlsplit

from scrapy.exceptions import NotConfigured
from scrapy.utils.httpobj import urlparse_cached
from scrapy.utils.url import add_http_if_no_scheme

from scrapy_distributed.config.config import Config
from scrapy_distributed.errors import ConfigError, NodeRequestError
from scrapy_distributed.guard.hosts import Addresses, literal, on_one_machine
from scrapy_distributed.password import without_password
from scrapy_distributed.role import is_borrowed
from scrapy_distributed.words import shortened

if TYPE_CHECKING:
    from scrapy import Request, Spider
    from scrapy.crawler import Crawler
    from scrapy.statscollectors import StatsCollector

    from scrapy_distributed.fleet.node import NodeAddress

logger = logging.getLogger(__name__)

#: Of the downloader middleware: nothing is nearer to the downloader, so what another one sends or changes comes by.
LAST = 2**63 - 1
#: Ports that nodes share with sites.
SHARED = frozenset((80, 443))
SCRAPYD_PORT = 6800
Parts: TypeAlias = ParseResult | SplitResult
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Guard:
    """Downloader middleware that refuses requests to *nodes*, (host, port) each: as their URL, or by their proxy."""

    def __init__(self, *, nodes: Iterable[tuple[str, int]], addresses: Addresses, spider: Spider, stats: Any) -> None:
        self._ports: set[int] = set()  # that no host may be asked at
        self._names: dict[int, set[str]] = {}  # of nodes, by the port that they share with sites
        self._addresses = addresses
        self._spider = spider
        self._stats: StatsCollector = stats
        self._said = False
        for host, port in nodes:
            if port in SHARED:
                self._names.setdefault(port, set()).add(_plain(host))
            else:
                self._ports.add(port)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Guard:
        """Raises ``NotConfigured`` where no node is known, or any request is allowed, and ``ConfigError``."""
        nodes = [] if is_borrowed(crawler) else nodes_of(crawler)
        if not nodes:
            raise NotConfigured
        assert crawler.spider is not None
        with_reactor = crawler.settings.getbool("TWISTED_REACTOR_ENABLED", True)
        return cls(
            nodes=nodes, addresses=Addresses(with_reactor=with_reactor), spider=crawler.spider, stats=crawler.stats
        )

    def process_request(self, request: Request) -> Awaitable[None] | None:
        """Raises ``NodeRequestError`` if *request* would go to a node. Only a host at a port that sites and nodes share
        has to be waited for."""
        parts, proxy = urlparse_cached(request), request.meta.get("proxy")
        if parts.scheme not in _DEFAULT_PORTS and not proxy:
            return None
        port = _port(parts)
        if port in self._ports:
            self._refuse(request, parts)
        if proxy:
            return self._check_proxy(request, parts, str(proxy))
        return self._check(request, parts) if port in self._names else None

    def _check_proxy(self, request: Request, target: Parts, proxy: str) -> Awaitable[None] | None:
        """The proxy is what is connected to, and it may be in the network of the nodes."""
        try:
            parts = urlsplit(add_http_if_no_scheme(proxy))  # as HttpProxyMiddleware does
        except ValueError:  # nothing that could be connected to
            return None
        if _port(parts) in self._ports:
            self._refuse(request, parts)
        if _port(parts) in self._names or _port(target) in self._names:
            return self._check_both(request, target, parts)
        return None

    async def _check_both(self, request: Request, target: Parts, proxy: Parts) -> None:
        await self._check(request, target, look_up=False)  # the proxy does so, and what it finds is not known here
        await self._check(request, proxy)

    async def _check(self, request: Request, parts: Parts, *, look_up: bool = True) -> None:
        names, host = self._names.get(_port(parts)), parts.hostname
        if not names or not host:
            return
        if _plain(host) in names:
            self._refuse(request, parts)
        if not look_up and literal(host) is None:
            return
        found = await self._addresses.of(host, must=True)
        for name in names:
            if on_one_machine(found, await self._addresses.of(name)):
                self._refuse(request, parts)

    def _refuse(self, request: Request, parts: Parts) -> None:
        self._stats.inc_value("distributed/requests_to_nodes")
        place = shortened(f"{parts.hostname}:{_port(parts)}")
        if not self._said:
            self._said = True
            came_by = request.meta.get("redirect_urls")
            came_by = came_by if isinstance(came_by, list) and came_by and isinstance(came_by[0], str) else ()
            logger.warning(
                "Refused %s %s: a node of the fleet is at %s, and who can post to a Scrapyd can run code there%s. If it"
                " is a site that is to be crawled, set DISTRIBUTED_ALLOW_NODE_REQUESTS = True. Further ones are counted"
                " in distributed/requests_to_nodes",
                request.method, shortened(without_password(request.url)), place,
                f"; it came by a redirect of {shortened(without_password(came_by[0]))}" if came_by else "",
                extra={"spider": self._spider},
            )  # fmt: skip
        raise NodeRequestError(f"a node of the fleet is at {place}")


def stand_by(spider: Spider) -> None:
    """For ``spider_opened``: the guard of a crawl whose project names our spider middleware in its settings, and not
    the add-on. That one is made after the downloader's, and before the engine that has both is known."""
    crawler = spider.crawler
    if crawler.get_downloader_middleware(Guard) is not None:
        return
    try:
        guard = Guard.from_crawler(crawler)
    except NotConfigured:
        return
    assert crawler.engine is not None
    manager: Any = crawler.engine.downloader.middleware
    manager.middlewares = (*manager.middlewares, guard)
    # A new one: another extension may be downloading something already, and is on its way through the old one.
    manager.methods["process_request"] = deque([*manager.methods["process_request"], guard.process_request])


def nodes_of(crawler: Crawler) -> list[tuple[str, int]]:
    """Host and port of each node that this crawl knows of, none where requests to them are allowed.

    A worker is told them; besides it knows the Scrapyd that has started it, if one has, which may have another port
    behind a proxy and does without a password there. Raises ``ConfigError`` for what a worker is told."""
    try:
        config = Config.from_settings(crawler.settings)
    except ConfigError:  # the crawl does not start, and our spider middleware says why
        return []
    if config.allow_node_requests:
        return []
    if config.start_url is None:
        return _targets(config.target_hosts)
    nodes = [_node(entry) for entry in config.nodes]
    if hasattr(crawler.spider, "_job") and not config.parent:
        nodes.append(("localhost", own_scrapyd()[1]))
    return nodes


def told(nodes: Iterable[NodeAddress]) -> str:
    """``DISTRIBUTED_NODES`` of the jobs: no credentials, and of the nodes at a port that only nodes have the first."""
    at_port: dict[Any, str] = {}
    for parts in (urlsplit(node.url) for node in nodes):
        at_port.setdefault(parts.netloc if parts.port in SHARED else parts.port, parts.netloc)
    return ",".join(at_port.values())


def own_scrapyd() -> tuple[str, int]:
    """Where this machine reaches the Scrapyd that has started this process."""
    host, port = os.environ.get("SCRAPYD_BIND_ADDRESS", ""), os.environ.get("SCRAPYD_HTTP_PORT", "")
    with suppress(ImportError, ConfError):
        from scrapyd.config import Config as ScrapydConfig

        config = ScrapydConfig()
        host, port = host or config.get("bind_address", ""), port or config.get("http_port", "")
    anywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    return anywhere.get(host, host), int(port) if port.isdecimal() else SCRAPYD_PORT


def own_is_open() -> bool:
    """Whether that Scrapyd answers a stranger. Waits for at most some seconds, also for the event loop."""
    connection = HTTPConnection(*own_scrapyd(), timeout=2)
    try:
        connection.request("GET", "/daemonstatus.json")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _node(entry: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.username is not None:
        raise ConfigError("DISTRIBUTED_NODES: found an entry that is not host:port; it is sent by the coordinator")
    return host, port


def _targets(hosts: Iterable[str]) -> list[tuple[str, int]]:
    """Of what the coordinator is told; it says what is wrong with it."""
    if not hosts:
        return []
    from scrapy_distributed.fleet.addresses import places

    return places(hosts)


def _port(parts: Parts) -> int:
    return _port_of(parts.scheme, parts.netloc)


@lru_cache(maxsize=4096)
def _port_of(scheme: str, netloc: str) -> int:
    """The port that is connected to. Some read ``6_800`` as a number, and the C library 72336 as 6800."""
    default = _DEFAULT_PORTS.get(scheme, 80)
    try:
        return urlsplit(f"//{netloc}").port or default
    except ValueError:
        with suppress(ValueError):
            return int(netloc.rpartition(":")[2]) % 2**16
        return default


def _plain(host: str) -> str:
    """A name as it is compared."""
    with suppress(UnicodeError):
        host = host.encode("idna").decode()
    return host.lower().rstrip(".")
