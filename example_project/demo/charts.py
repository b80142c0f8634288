"""Charts as SVG that grows and shrinks with the window: positions are percentages, and all text stays HTML, so that it
keeps its size. Colours and sizes are classes, which the style sheet of `report.py` knows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]
Format = Callable[[float], str]

FEWEST_STEPS = 3  # of an axis


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values from ``low`` to ``high``, which is the greater one, as percentages of a length."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where ``value`` is; what is outside of the scale is at its nearer end."""
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    @property
    def step(self) -> float:
        """A round number, of which some fit."""
        return round_step((self.high - self.low) / FEWEST_STEPS)

    def ticks(self) -> list[float]:
        """Round values, a few, the same step apart."""
        step = self.step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def round_step(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... and of 0.5, 0.2, 0.1, ... that is not above ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most * (1 + 1e-9))


def scale_around(values: Iterable[float]) -> Scale:
    """From the least to the greatest of these values and 0, with some room."""
    known = [0.0, *values]
    room = 0.05 * (max(known) - min(known)) or 1.0
    return Scale(low=min(known) - room, high=max(known) + room)


# --- one line of a table ---


def interval(scale: Scale, *, truth: float, estimate: float | None, error: float, label: str) -> str:
    """A tick for the truth, and a point with ``error`` to both sides for the estimate."""
    parts = [*grid(scale), tick("truth", scale.at(truth), 15)]
    if estimate is not None:
        low, high = scale.at(estimate - error), scale.at(estimate + error)
        parts += [
            f'<line class="error" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>',
            tick("error", low, 35),
            tick("error", high, 35),
            f'<circle class="estimate" cx="{scale.at(estimate):.2f}%" cy="50%" r="4.5"/>',
        ]
    return picture(parts, label)


def bar(scale: Scale, begin: float, end: float, *, kind: str, label: str) -> str:
    """A bar from ``begin`` to ``end``; ``kind`` is its class."""
    left, right = scale.at(begin), scale.at(end)
    return picture([f'<rect class="{kind}" x="{left:.2f}%" width="{right - left:.2f}%" y="20%" height="60%"/>'], label)


def grid(scale: Scale) -> list[str]:
    """A thin line at each tick; that at 0 is stronger."""
    return [tick("zero" if value == 0 else "grid", scale.at(value), 0) for value in scale.ticks()]


def tick(kind: str, at: float, inset: int) -> str:
    """An upright line at ``at`` percent, that ends ``inset`` percent from above and below."""
    return f'<line class="{kind}" x1="{at:.2f}%" x2="{at:.2f}%" y1="{inset}%" y2="{100 - inset}%"/>'


def picture(parts: Iterable[str], label: str) -> str:
    """One picture, with ``label`` as its text for those who can't see it, and under the pointer."""
    name = escape(label)
    return f'<svg class="line" role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'


def axis(scale: Scale, shown: Format) -> str:
    """The ticks of a horizontal scale in words."""
    labels = (f'<span style="left:{scale.at(value):.2f}%">{shown(value)}</span>' for value in scale.ticks())
    return f'<div class="axis">{"".join(labels)}</div>'


# --- curves over time ---


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over time. With ``steps`` each holds until the next; ``kind`` is the class of its line."""

    kind: str
    points: Sequence[Point]
    steps: bool = False

    def corners(self) -> list[Point]:
        """The points at which its line bends."""
        if not self.steps:
            return list(self.points)
        following = zip(self.points, self.points[1:], strict=False)
        return [*self.points[:1], *(corner for (_, y), later in following for corner in ((later[0], y), later))]


def panel(curves: Sequence[Curve], x: Scale, y: Scale, *, shown_x: Format, shown_y: Format, label: str) -> str:
    """Curves in one frame, with both axes."""
    levels = [100 - y.at(value) for value in y.ticks()]
    lines = [f'<line class="grid" x1="0" x2="100" y1="{level:.2f}" y2="{level:.2f}"/>' for level in levels]
    for curve in curves:
        points = " ".join(f"{x.at(time):.2f},{100 - y.at(value):.2f}" for time, value in curve.corners())
        lines.append(f'<polyline class="{curve.kind}" points="{points}"/>')
    labels = (f'<span style="top:{100 - y.at(value):.2f}%">{shown_y(value)}</span>' for value in y.ticks())
    return (
        f'<div class="panel"><div class="levels">{"".join(labels)}</div>'
        f'<svg class="curves" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{''.join(lines)}</svg>{axis(x, shown_x)}</div>"
    )
