"""Measurements -> tables in Markdown, and a plot as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from statistics import median

from measurement import Measurement
from processes import ROLES

OURS = "this project"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one contender at one workload that gave a result, and how many gave none."""

    name: str
    workers: int
    good: tuple[Measurement, ...]
    failed: int
    ours: bool

    @property
    def properties(self) -> int:
        return int(self.good[0].workload["properties"])

    def median(self, figure: Callable[[Measurement], float]) -> float:
        return float(median(map(figure, self.good)))

    def spread(self, figure: Callable[[Measurement], float], digits: int) -> str:
        """Median, and in brackets minimum and maximum."""
        values = [figure(found) for found in self.good]
        return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was measured side by side."""

    scenario: str
    title: str
    rows: tuple[Row, ...]


def items_per_second(found: Measurement) -> float:
    return float(found.workload["properties"] / found.seconds)


def cpu_per_item(found: Measurement, role: str = "") -> float:
    """Milliseconds, of one role or of all processes."""
    seconds = found.cpu[role] if role else sum(found.cpu.values())
    return float(seconds / found.workload["properties"] * 1000)


def cores(found: Measurement) -> float:
    """How many cores were busy, on average."""
    return sum(found.cpu.values()) / found.seconds


def tables(measurements: Iterable[Measurement]) -> list[Table]:
    """Measurements of the same scenario, size and latency belong together."""
    grouped: dict[tuple[str, int, float], dict[tuple[str, str, int], list[Measurement]]] = {}
    for found in measurements:
        workload = found.workload
        table = grouped.setdefault((found.scenario, workload["properties"], workload["latency"]), {})
        workers = workload["nodes"] * workload["workers"]
        table.setdefault((found.contender, found.form, workers), []).append(found)
    return [
        Table(
            scenario=name,
            title=f"{name}: {properties:,} properties, {latency:g} s a page",
            rows=tuple(_row(*key, found) for key, found in table.items()),
        )
        for (name, properties, latency), table in grouped.items()
    ]


def _row(contender: str, form: str, workers: int, measurements: Sequence[Measurement]) -> Row:
    good = tuple(found for found in measurements if not found.problem)
    return Row(
        name=f"{contender}, {form}",
        workers=workers,
        good=good,
        failed=len(measurements) - len(good),
        ours=contender == OURS,
    )


def markdown(found: Sequence[Table], questions: Mapping[str, str]) -> str:
    """All tables."""
    return "\n".join(_markdown(table, questions.get(table.scenario, "")) for table in found)


def _markdown(table: Table, question: str) -> str:
    rows = [row for row in table.rows if row.good]
    ours = [row for row in rows if row.ours]
    speed = ("", "workers", "rounds", "wall, s", "items/s", "cores", "first, s", "reaction, s")
    parts = [
        f"## {table.title}",
        question,
        _grid(speed, map(_speed, table.rows)),
        "CPU, in milliseconds for each item:",
        _grid(("", "workers", "all", *ROLES, "daemons' share"), map(_cpu, rows)),
    ]
    if ours and len(rows) > 1:
        parts += [
            "Wall of this project, divided by that of:",
            _grid(("", *map(_named, rows)), (_ratios(row, rows) for row in ours)),
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text."""
    lines = [head, ("---", *("---:",) * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _speed(row: Row) -> Sequence[str]:
    rounds = f"{len(row.good)}" + (f" ({row.failed} failed)" if row.failed else "")
    if not row.good:
        return (row.name, str(row.workers), rounds, *("",) * 5)
    return (
        row.name,
        str(row.workers),
        rounds,
        row.spread(lambda found: found.seconds, 1),
        row.spread(items_per_second, 0),
        row.spread(cores, 2),
        f"{row.median(lambda found: found.first):.1f}",
        _reaction(row),
    )


def _cpu(row: Row) -> Sequence[str]:
    by_role = (row.spread(partial(cpu_per_item, role=role), 3) for role in ROLES)
    share = row.median(lambda found: found.cpu["daemons"] / sum(found.cpu.values()))
    return (row.name, str(row.workers), row.spread(cpu_per_item, 2), *by_role, f"{share:.1%}")


def _reaction(row: Row) -> str:
    values = [found.reaction for found in row.good if found.reaction is not None]
    return f"{median(values):.1f}" if values else ""


def _named(row: Row) -> str:
    return f"{row.name}, {row.workers} worker{'s' if row.workers > 1 else ''}"


def _ratios(ours: Row, rows: Sequence[Row]) -> Sequence[str]:
    seconds = ours.median(lambda found: found.seconds)
    return (_named(ours), *(f"{seconds / row.median(lambda found: found.seconds):.2f}" for row in rows))


# --- the plot ---

_WIDTH, _LABELS, _BAR, _GAP = 960, 380, 20, 8
_COLOURS = {True: "#2a6fbb", False: "#9aa5b1"}


def svg(found: Sequence[Table]) -> str:
    """Items per second of every row: a bar for the median, a line from minimum to maximum."""
    drawn: list[str] = []
    top = 0
    for table in found:
        rows = [row for row in table.rows if row.good]
        if not rows:
            continue
        top += 34
        drawn.append(f'<text x="10" y="{top}" font-weight="bold">{escape(table.title)}: items/s</text>')
        top += 12
        scale = (_WIDTH - _LABELS - 90) / max(max(map(items_per_second, row.good)) for row in rows)
        for row in rows:
            drawn += _bar(row, top, scale)
            top += _BAR + _GAP
    frame = f'xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top + 16}"'
    body = "\n".join(drawn)
    return (
        f'<svg {frame} font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _bar(row: Row, top: int, scale: float) -> list[str]:
    values = [items_per_second(found) * scale for found in row.good]
    middle, length = top + _BAR // 2, median(values)
    return [
        f'<text x="{_LABELS - 8}" y="{middle + 5}" text-anchor="end">{escape(_named(row))}</text>',
        f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{_COLOURS[row.ours]}"/>',
        f'<line x1="{_LABELS + min(values):.1f}" x2="{_LABELS + max(values):.1f}" y1="{middle}" y2="{middle}" '
        'stroke="black" stroke-width="2"/>',
        f'<text x="{_LABELS + max(values) + 8:.1f}" y="{middle + 5}">{length / scale:,.0f}</text>',
    ]
