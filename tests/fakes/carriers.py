"""A node that is never asked."""

from __future__ import annotations

from scrapy_distributed.dispatch.members import Member
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.fleet.node import Node, NodeAddress


class Nobody:
    """A client and a clock that fail where they are used."""


def idle_member(number: int, **values: object) -> Member:
    """The member n*number*."""
    address = NodeAddress(name=f"n{number}", url=f"http://n{number}:6800")
    node = Node(address=address, client=Nobody(), clock=Nobody())  # type: ignore[arg-type]
    return Member(carrier=ScrapydCarrier(node, project="p", spider="s", feed=True), **values)  # type: ignore[arg-type]
