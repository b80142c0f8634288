"""Text for people: nothing in it floods a log, or is carried out by a terminal."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_QUOTE = 300  # characters


def shortened(text: str, longest: int = LONGEST_QUOTE) -> str:
    """*text* as others may see it: cut where it would flood a log, and without what a terminal would carry out."""
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return cut if cut.isprintable() else "".join(one if one.isprintable() else "?" for one in cut)


def escaped(text: str) -> str:
    """*text* whole, as one line that can't control a terminal: reasons and URLs come from nodes and pages, and a ledger
    may be somebody else's."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def last_line(text: str) -> str:
    """The last line with something in it: of a traceback, the one that names the error."""
    return shortened(next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "an empty message"))


def listed(names: Iterable[str]) -> str:
    """*names* in order, ``none`` where there are none."""
    return shortened(", ".join(sorted(names))) or "none"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 item``, ``1,000 items``; *plural*: where that is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
