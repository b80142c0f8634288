"""Shared runs on a real server, each test's in a project of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ledgers import IDENTITY, body, key

from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.claims import Claimed, Claims, Joined, Nothing
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Begun, Intake
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.seen_key import seen_key

VERSION = "4f2a"
_NUMBERS = count(1)


@dataclass
class SharedRun:
    """A run of a project of its own, which a coordinator has begun and walks."""

    server: Server
    intake: Intake
    project: str
    workers: dict[str, Claims] = field(default_factory=dict)

    @classmethod
    async def begin(
        cls, server: Server, *, project: str = "", identity: dict[str, Any] = IDENTITY, **values: Any
    ) -> SharedRun:
        """*values*: of its rules."""
        project = project or f"p{next(_NUMBERS)}"
        intake = Intake(server, project)
        await begin(intake, identity=identity, **values)
        assert (await intake.walk(600)).is_ours
        return cls(server, intake, project)

    async def again(self) -> Begun:
        """Another process goes on as its coordinator."""
        self.intake = Intake(self.server, self.project, owner=self.intake.owner)
        return await begin(self.intake)

    async def store(self) -> None:
        """A coordinator that has left comes back, and stores the result."""
        assert (await self.intake.walk(600)).is_ours
        await self.intake.stored()
        await self.intake.leave_walk()

    @property
    def name(self) -> str:
        return self.intake.run

    @property
    def account(self) -> Account:
        return Account(self.server, self.project, self.name)

    @property
    def control(self) -> Control:
        return Control(self.server, self.project, self.name)

    @property
    def harvest(self) -> Harvest:
        return Harvest(self.server, self.project, self.name, owner=self.intake.owner)

    def key(self, *rest: object) -> str:
        return self.intake.keys.of(self.name, *rest)

    def worker(
        self, name: str = "w1", *, slots: int = 1, version: str = VERSION, spiders: tuple[str, ...] = ("s",)
    ) -> Claims:
        if name not in self.workers:
            joined = Joined(worker=name, host="h", pid=1, slots=slots, version=version, spiders=spiders)
            self.workers[name] = Claims(self.server, self.project, joined)
        return self.workers[name]

    async def add(self, *numbers: int) -> list[str]:
        return await self.intake.add([(key(number), body(number)) for number in numbers])

    async def claim(self, size: int = 100, name: str = "w1") -> Claimed:
        claimed = await self.worker(name).claim(lambda spider: size)
        assert isinstance(claimed, Claimed)
        return claimed

    async def nothing(self, name: str = "w1") -> Nothing:
        found = await self.worker(name).claim(lambda spider: 100)
        assert isinstance(found, Nothing)
        return found

    async def end_lease(self, claimed: Claimed) -> None:
        """As if it had run out."""
        assert await self.server.command("ZADD", self.key("lease"), "XX", "CH", 1, claimed.token) == 1

    async def counts(self) -> dict[str, int]:
        """The counts of the balance, which must hold, without those that are 0."""
        balance = (await self.intake.state()).balance
        assert balance.holds, str(balance)
        return {name: number for name, number in balance.as_dict().items() if number}

    async def ended(self) -> bool:
        return (await self.intake.state()).ended is not None

    async def staged(self) -> list[str]:
        """The names of what is staged."""
        names = await self.server.command("KEYS", self.key("staged", "*").replace("{", "\\{").replace("}", "\\}"))
        return sorted(name.decode().partition(":staged:")[2] for name in names)


async def begin(intake: Intake, *, identity: dict[str, Any] = IDENTITY, resume: bool = True, **values: Any) -> Begun:
    rules = RunRules(**{"max_attempts": 3, "lease_seconds": 60, **values})
    return await intake.begin(
        identity, spider="s", template=json.dumps({}), version=VERSION, rules=rules, resume=resume
    )


def found_of(*numbers: int) -> list[tuple[bytes, str]]:
    """As a worker stages them."""
    return [(seen_key(key(number)), body(number)) for number in numbers]


@asynccontextmanager
async def begun(address: RedisAddress) -> AsyncIterator[SharedRun]:
    """With a connection of its own to *address*."""
    server = await Server.connect(address)
    try:
        yield await SharedRun.begin(server)
    finally:
        await server.close()
