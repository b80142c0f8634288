"""What a Scrapyd is asked for the sake of an attempt."""

from __future__ import annotations

import io
from hashlib import sha256

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd

from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.errors import NodeItemsError
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.ledger.states import Attempt, AttemptState


def attempt(number: int) -> Attempt:
    return Attempt(run="r", batch=1, number=number, node="n", token="t", state=AttemptState.SENT, positions=1)


@pytest_twisted.ensureDeferred
async def test_the_items_of_an_attempt_are_those_of_its_job() -> None:
    fake = FakeScrapyd(files={"p/s.receipts/r-000001-2-t.items": b"items"}).listen()
    node = Node(address=fake.address)
    carrier = ScrapydCarrier(node, project="p", spider="s", feed=False)
    file = io.BytesIO()
    await carrier.items(attempt(2), file, size=5, digest=sha256(b"items").hexdigest())
    assert file.getvalue() == b"items"
    with pytest.raises(NodeItemsError, match="HTTP 404"):
        await carrier.items(attempt(1), file, size=5, digest=sha256(b"items").hexdigest())
    await carrier.close()
    await fake.close()
