"""Items of pydantic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trial.home.spider import ShopSpider, product


class Maker(BaseModel):
    name: str
    since: datetime | None = None


class Model(BaseModel):
    """Once more through the validator, the *name* would grow."""

    model_config = ConfigDict(extra="allow", frozen=True)

    number: int
    name: str
    price: float = Field(default=0.0, gt=-1, json_schema_extra={"serializer": str})
    makers: list[Maker] = []

    @field_validator("name")
    @classmethod
    def _longer(cls, name: str) -> str:
        return f"{name}+"


class Modelled(ShopSpider):
    name = "pydantic"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        makers = [Maker(name="one"), Maker(name="two", since=datetime(2020, 1, 1))]
        yield Model(**found, makers=makers[: found["number"] % 3])
