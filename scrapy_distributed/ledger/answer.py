"""What comes of a wish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class Answer:
    """*lines*: what was done, or why not, and then what has to be known of that. *done*: whether anything was.
    *numbers*: the same for programs, by name."""

    lines: tuple[str, ...]
    done: bool = True
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def words(self) -> str:
        return "; ".join(self.lines)

    def as_text(self) -> str:
        """The words alone, where these are all."""
        return self.words if Answer.from_text(self.words) == self else json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Answer:
        """What ``as_text`` does not write are words, whatever is in them."""
        try:
            answer = cls(**json.loads(text))
            numbers = dict(answer.numbers)
            known = isinstance(answer.lines, list) and all(isinstance(line, str) for line in answer.lines or (None,))
            if known and answer.done in (True, False) and all(isinstance(number, int) for number in numbers.values()):
                return cls(lines=tuple(answer.lines), done=answer.done, numbers=numbers)
        except (ValueError, TypeError, RecursionError):
            pass
        return cls(lines=(text,))
