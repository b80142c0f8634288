"""Dispatchers and their nodes. Imported where they are used: what they need installs a reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fake_scrapyd import FakeScrapyd
    from rig import Rig


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    import pytest_twisted
    from fake_scrapyd import FakeScrapyd
    from twisted.internet.defer import Deferred

    fakes = [FakeScrapyd(projects={"p": {"1": ["s"]}}).listen() for _ in range(2)]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture
def make_rig(tmp_path: Path, fakes: list[FakeScrapyd]) -> Iterator[Callable[..., Rig]]:
    import pytest_twisted
    from rig import Rig
    from twisted.internet.defer import Deferred

    rigs: list[Rig] = []

    def make(*, nodes: int = 2, **values: Any) -> Rig:
        rigs.append(Rig(tmp_path / "s.sqlite", fakes[:nodes], **values))
        return rigs[-1]

    yield make
    for rig in rigs:
        pytest_twisted.blockon(Deferred.fromCoroutine(rig.end()))


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()
