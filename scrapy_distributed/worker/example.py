"""What the first error of a kind said, and where the project has raised it: the kind alone does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any

from scrapy_distributed.password import without_passwords
from scrapy_distributed.wire.receipt import MAX_EXAMPLE
from scrapy_distributed.words import shortened

LONGEST = MAX_EXAMPLE // 2  # characters, of the message and of the place each


def example_of(error: BaseException, module: str) -> str:
    """``no price on page (shop/spiders/a.py:31)``: what *error* says, without passwords in URLs, and where the package
    of *module*, the spider's, has raised it; as far as there is either."""
    parts = (shortened(_message(error), LONGEST), shortened(_place(error, module.partition(".")[0]), LONGEST - 3))
    return " ".join(part if part is parts[0] else f"({part})" for part in parts if part)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # it is the project's
        return ""
    return " ".join(without_passwords(text[: 2 * MAX_EXAMPLE]).split())


def _place(error: BaseException, package: str) -> str:
    """File and line of the innermost frame of *package*, else of the innermost one of all; '' where nobody knows."""
    frames = list(_frames(error))
    own = [frame for frame in frames if _module(frame[0]).partition(".")[0] == package]
    for frame, line in reversed(own or frames):
        return f"{_file(frame)}:{line}"
    return ""


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _module(frame: FrameType) -> str:
    name: Any = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def _file(frame: FrameType) -> str:
    """Its path from the folder on in which its package lies: where that is differs from node to node."""
    path = PurePath(frame.f_code.co_filename)
    depth = _module(frame).count(".") + 1 + (path.stem == "__init__")
    return "/".join(path.parts[-depth:])
