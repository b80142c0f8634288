"""The classes of items: which may travel, how they are found by name, and filled without their ``__init__``.

The name comes from a worker and may be forged. So a class is looked up in what modules and classes hold themselves, and
nothing of it is called: no ``__init__``, ``__setattr__``, property or metaclass; one with a ``__del__`` is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import fields as dataclass_fields
from enum import Enum, Flag, IntFlag
from functools import cached_property
from importlib import import_module
from inspect import getattr_static
from types import MemberDescriptorType, ModuleType
from typing import Any, Protocol

from scrapy import Item

from scrapy_distributed.wire.leaves import StuckError

_HEAP_TYPE = 1 << 9  # in ``type.__flags__``: made by a class statement
_CACHED_HASH = "_attrs_cached_hash"  # attrs' ``cache_hash=True``; its ``__init__`` sets it to None
_MAX_FLAG_BITS = 64
_MODEL_PARTS = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


class Shape(Protocol):
    """A class whose objects travel as a few simpler values. *is_item*: they may be items, and not only in items."""

    is_item: bool

    def parts(self, value: Any) -> list[Any]:
        """The values that *value* is made of. Raises ``StuckError``."""

    def made(self, *parts: Any) -> Any:
        """The object that is made of *parts*, which may be forged. Raises anything."""

    def left_behind(self, value: Any) -> Collection[str]:
        """The names of what *value* holds besides its parts."""


def find(module: str, qualname: str, package: str = "") -> type:
    """The class of that name. A module that has not been imported is imported if it is of the top-level *package*.

    Raises ``LookupError`` where there is none, and whatever that import raises.
    """
    if module not in sys.modules and package and module.split(".")[0] == package:
        names = module.split(".")
        if "__main__" not in names and all(name.isidentifier() for name in names):
            import_module(module)
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        if not issubclass(type(found), ModuleType | type):
            break
        found = vars(found).get(name)
    of_that_name = (
        module != "__main__"
        and issubclass(type(found), type)
        and (vars(found).get("__module__"), type.__dict__["__qualname__"].__get__(found)) == (module, qualname)
    )
    if not of_that_name:
        raise LookupError(f"no class {qualname} in {module}")
    return found  # type: ignore[no-any-return]


def shape_of(kind: type) -> Shape:
    """How the objects of a class travel. Raises ``StuckError`` for a class that is no item's, nor one for values."""
    bases = type.__dict__["__mro__"].__get__(kind)
    if Enum in bases:
        return _EnumShape(kind)
    if getattr_static(kind, "__del__", None) is not None:
        raise StuckError(f"{kind.__name__} with a __del__")
    names = getattr_static(kind, "_fields", None)
    if tuple in bases and type(names) is tuple:
        return _TupleShape(kind, len(names))
    if _solid_base(kind) is not object:
        raise StuckError(kind.__name__)
    if Item in bases:
        return _ItemShape(kind)
    model: Any = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if model in bases:
        return _ModelShape(kind, model)
    if type(getattr_static(kind, "__dataclass_fields__", None)) is dict:
        return _AttributesShape(kind, [field.name for field in dataclass_fields(kind)])
    of_attrs = getattr_static(kind, "__attrs_attrs__", None)
    if isinstance(of_attrs, tuple):
        return _AttributesShape(kind, [field.name for field in of_attrs])
    raise StuckError(kind.__name__)


class Classes:
    """The classes of the objects in one text, in the order in which they are met, and counted from 1. With *package*
    only those that a process has which has imported no more than the modules of that top-level package name."""

    def __init__(self, package: str = "") -> None:
        self._package = package
        self._known: dict[type, tuple[int, Shape]] = {}

    def __contains__(self, kind: type) -> bool:
        return kind in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[type]:
        return iter(self._known)

    def of(self, kind: type) -> tuple[int, Shape]:
        """The number and the shape of *kind*. Raises ``StuckError`` where its objects can't travel."""
        known = self._known.get(kind)
        if known is None:
            shape = shape_of(kind)
            try:
                found: type | None = find(kind.__module__, kind.__qualname__)
            except LookupError:
                found = None
            if found is not kind:
                raise StuckError(f"{kind.__name__} that can't be found by its name")
            if self._package and not _is_named_by(self._package, kind):
                raise StuckError(f"{kind.__name__} of {kind.__module__}, which no module of {self._package} names")
            known = self._known[kind] = len(self._known) + 1, shape
        return known

    def forget(self, number: int) -> None:
        """All but the first *number*."""
        for kind in list(self._known)[number:]:
            del self._known[kind]


_named: set[tuple[str, type]] = set()


def _is_named_by(package: str, kind: type) -> bool:
    """Whether *kind* is of the top-level *package*, or a module of it has the class or its module as a name."""
    if kind.__module__.split(".")[0] == package or (package, kind) in _named:
        return True
    wanted = {id(kind), id(sys.modules.get(kind.__module__))}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == package and any(id(value) in wanted for value in list(vars(module).values())):
            _named.add((package, kind))
            return True
    return False


class Shapes:
    """The shapes of the classes that a text has named, for a spider of the top-level *package*."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._shapes: list[Shape] = []
        self._kinds: set[type] = set()

    def name(self, module: Any, qualname: Any) -> None:
        """The next class has that name. Raises anything for what is forged."""
        if (type(module), type(qualname)) != (str, str):
            raise TypeError("expected the name of a class")
        kind = find(module, qualname, self._package)
        if kind in self._kinds:
            raise ValueError("a class that has been named")
        self._shapes.append(shape_of(kind))
        self._kinds.add(kind)

    def __len__(self) -> int:
        return len(self._shapes)

    def of(self, number: Any) -> Shape:
        """The shape of the class *number*. Raises ``ValueError`` where there is none."""
        if type(number) is not int or not 1 <= number <= len(self._shapes):
            raise ValueError("expected the number of a class")
        return self._shapes[number - 1]


def _solid_base(kind: type) -> Any:
    """The built-in class that its objects are laid out like: ``object.__new__`` makes only those of ``object``."""
    base: Any = kind
    while base.__flags__ & _HEAP_TYPE:
        base = base.__base__
    return base


def _known(found: Any, names: frozenset[str]) -> dict[str, Any]:
    if type(found) is not dict:
        raise TypeError(f"found {type(found).__name__}, expected fields")
    if not found.keys() <= names:
        raise ValueError(f"unknown fields {sorted(map(str, found.keys() - names))[:3]}")
    return found


class _WholeShape:
    """Its parts are all that there is."""

    def left_behind(self, value: Any) -> Collection[str]:
        return ()


class _ItemShape(_WholeShape):
    """Of a ``scrapy.Item``."""

    is_item = True

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._names = frozenset(getattr_static(kind, "fields"))

    def parts(self, value: Any) -> list[Any]:
        return [value._values]

    def made(self, fields: Any) -> Any:
        item = object.__new__(self._kind)
        object.__getattribute__(item, "__dict__")["_values"] = _known(fields, self._names)
        return item


class _AttributesShape:
    """Of a dataclass or an attrs class. Attributes that are no fields, caches mostly, stay behind."""

    is_item = True

    def __init__(self, kind: Any, names: list[str]) -> None:
        self._kind = kind
        self._names = names
        self._known = frozenset(names)
        self._slots: dict[str, Any] = {}
        for name in names:
            found = getattr_static(kind, name, None)
            if type(found) is MemberDescriptorType:
                self._slots[name] = found
            elif getattr_static(type(found), "__set__", None) is not None:
                raise StuckError(f"{kind.__name__} whose {name} is no plain attribute")
        code = getattr(getattr_static(kind, "__hash__", None), "__code__", None)
        self._caches_hash = _CACHED_HASH in getattr(code, "co_names", ())

    def parts(self, value: Any) -> list[Any]:
        own = getattr(value, "__dict__", {})
        if not self._slots:
            return [{name: own[name] for name in self._names if name in own}]
        there = {}
        for name in self._names:
            if name not in self._slots:
                if name in own:
                    there[name] = own[name]
                continue
            try:
                there[name] = self._slots[name].__get__(value)
            except AttributeError:  # it was never set
                continue
        return [there]

    def left_behind(self, value: Any) -> Collection[str]:
        """But for what is made anew when it is asked for."""
        others = getattr(value, "__dict__", {}).keys() - self._known - {_CACHED_HASH}
        return [name for name in others if not isinstance(getattr_static(self._kind, name, None), cached_property)]

    def made(self, fields: Any) -> Any:
        item = object.__new__(self._kind)
        _known(fields, self._known)
        if not self._slots:
            object.__getattribute__(item, "__dict__").update(fields)
        else:
            for name, one in fields.items():
                if name in self._slots:
                    self._slots[name].__set__(item, one)
                else:
                    object.__getattribute__(item, "__dict__")[name] = one
        if self._caches_hash:
            object.__setattr__(item, _CACHED_HASH, None)
        return item


class _ModelShape(_WholeShape):
    """Of a pydantic model (version 2): its fields; then what is not as usual: which of them were set, extra ones, and
    private attributes."""

    is_item = True

    def __init__(self, kind: Any, model: type) -> None:
        self._kind = kind
        known = getattr_static(kind, "__pydantic_fields__", None)
        if known is None:  # before 2.10
            known = getattr_static(kind, "model_fields")
        self._names = frozenset(known)
        self._takes_extra = getattr_static(kind, "model_config").get("extra") == "allow"
        self._private = frozenset(getattr_static(kind, "__private_attributes__"))
        self._slots = [vars(model)[name] for name in _MODEL_PARTS]

    def parts(self, value: Any) -> list[Any]:
        fields = {name: one for name, one in value.__dict__.items() if name in self._names}
        were_set, extra, private = (self._slot(slot, value) for slot in self._slots)
        if extra is None and private is None and were_set == fields.keys():
            return [fields]
        return [fields, list(were_set or ()), extra, private]

    @staticmethod
    def _slot(slot: Any, value: Any) -> Any:
        try:
            return slot.__get__(value)
        except AttributeError:  # a root model has none of its own
            return None

    def made(self, fields: Any, *rest: Any) -> Any:
        item = object.__new__(self._kind)
        object.__getattribute__(item, "__dict__").update(_known(fields, self._names))
        were_set, extra, private = rest if rest else (list(fields), None, None)
        if not all(type(name) is str for name in were_set):
            raise TypeError("a field that was set has a name that is no text")
        if extra is not None and (not self._takes_extra or type(extra) is not dict):
            raise TypeError("extra fields in a model without")
        if private is not None:
            _known(private, self._private)
        for slot, one in zip(self._slots, (set(were_set), extra, private), strict=True):
            slot.__set__(item, one)
        return item


class _TupleShape(_WholeShape):
    """Of a named tuple."""

    is_item = False

    def __init__(self, kind: type, length: int) -> None:
        self._kind = kind
        self._length = length

    def parts(self, value: Any) -> list[Any]:
        if getattr(value, "__dict__", None):
            raise StuckError(f"{self._kind.__name__} with attributes of its own")
        return [list(value)]

    def made(self, values: Any) -> Any:
        if type(values) is not list or len(values) != self._length:
            raise TypeError(f"expected {self._length} values")
        return tuple.__new__(self._kind, values)


class _EnumShape(_WholeShape):
    """Of an Enum: a member's name, or the value of several flags."""

    is_item = False

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._members: dict[str, Any] = vars(kind)["_member_map_"]
        bases = type.__dict__["__mro__"].__get__(kind)
        self._flag: Any
        self._flag = IntFlag if IntFlag in bases else Flag if Flag in bases else None

    def parts(self, value: Any) -> list[Any]:
        name: Any = value._name_
        if self._members.get(name) is value:
            return [name]
        if self._flag is None or not _is_flag_value(value._value_):
            raise StuckError(f"{self._kind.__name__} that is no member")
        return [value._value_]

    def made(self, key: Any) -> Any:
        if type(key) is str:
            return self._members[key]
        if self._flag is None or not _is_flag_value(key):
            raise TypeError("expected the name of a member")
        found = vars(self._kind)["_value2member_map_"].get(key)
        if found is None:  # what Enum does, without what the class may do instead
            found = self._flag._missing_.__func__(self._kind, key)
        if type(found) is not self._kind:
            raise ValueError("expected the value of flags")
        return found


def _is_flag_value(value: Any) -> bool:
    return type(value) is int and value.bit_length() <= _MAX_FLAG_BITS
