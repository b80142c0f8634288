"""Items of every kind, as a project has them."""

from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import InitVar, dataclass, field
from enum import Enum, Flag, IntEnum, IntFlag, auto
from functools import cached_property
from typing import Any, NamedTuple

import attr
import attrs
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator
from scrapy import Field as ItemField
from scrapy import Item

RAN: list[str] = []
"""What of these classes has run, that a reader must not run."""


def shout(value: Any) -> str:
    return f"{value}!"


class Book(Item):
    title = ItemField(serializer=shout)
    price = ItemField()
    other = ItemField()


class Guarded(Item):
    name = ItemField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        RAN.append("Guarded.__init__")
        super().__init__(*args, **kwargs)

    def __setitem__(self, key: str, value: Any) -> None:
        RAN.append("Guarded.__setitem__")
        super().__setitem__(key, value)


@dataclass
class Offer:
    title: Any = field(default=None, metadata={"serializer": shout})
    price: Any = None
    other: Any = None
    sum: Any = field(init=False, default=7)
    start: InitVar[int] = 3

    def __post_init__(self, start: int) -> None:
        RAN.append("Offer.__post_init__")

    @cached_property
    def cached(self) -> int:
        return 5


@dataclass(frozen=True)
class Frozen:
    title: Any
    price: Any = 0


@dataclass(slots=True)
class Slotted:
    title: Any
    late: Any = field(init=False)


@dataclass
class Below(Slotted):
    """Some fields in slots, and some not."""

    more: Any = None


@attrs.define
class Attrs:
    title: Any
    price: Any = attrs.field(default=0, validator=attrs.validators.instance_of(object))
    _hidden: Any = None


@attrs.frozen
class FrozenAttrs:
    title: Any
    price: Any = 0


@attr.s(hash=True, cache_hash=True)
class OldAttrs:
    title = attr.ib()
    price = attr.ib(default=0)


class Model(BaseModel):
    title: Any
    price: Any = Field(default=0, alias="cost")
    _private: Any = PrivateAttr(default=None)

    @field_validator("title")
    @classmethod
    def _checked(cls, value: Any) -> Any:
        RAN.append("Model.title")
        return value


class Plain(BaseModel):
    title: Any
    price: Any = 0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    title: Any


class Root(RootModel[list[int]]):
    pass


class Kind(Enum):
    TEA = "tea"
    ODD = (1, 2)


class Word(str, Enum):
    A = "a"
    B = "b"


class Rank(IntEnum):
    LOW = 1


class Right(Flag):
    READ = auto()
    WRITE = auto()
    RUN = auto()


class Bits(IntFlag):
    ONE = 1
    TWO = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


Pair = namedtuple("Pair", "left right")


class Outer:
    @dataclass
    class Inner:
        title: Any


# What can't travel


class Money:
    pass


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Mapping(dict[str, Any]):
    pass


@dataclass
class Leaving:
    """It would do as its fields say when it is no longer needed."""

    name: Any

    def __del__(self) -> None:
        RAN.append(f"Leaving.__del__ {getattr(self, 'name', None)}")


@dataclass
class OfDict(dict[str, Any]):
    title: Any = None


@dataclass
class Renamed:
    title: Any = None


Other = Renamed
Hidden = Renamed
del Renamed


class Computed:
    def __get__(self, instance: Any, owner: Any) -> int:
        return 1

    def __set__(self, instance: Any, value: Any) -> None:
        RAN.append("Computed.__set__")


@dataclass
class WithProperty:
    title: Any = Computed()


@dataclass
class Locked:
    title: Any
    lock: Any = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Sullen:
    """It can't be told from others as long as it has no title."""

    title: Any = field()

    def __hash__(self) -> int:
        return hash(self.title)
