"""Which words of a title move the price: the answer without Spark, in plain Python, from a folder of JSON lines files.

    python shifts.py items/                     # top and bottom shifts
    python shifts.py items/ --follow            # again whenever files have come, until Ctrl-C
    python shifts.py items/ --json              # for scripts: [{"word": "pool", "shift": 0.14, "count": 12503}, ...]
    python shifts.py items/ --malformed bad.jl  # lines that are no items, with file, line number and reason

What an item, a word and a shift are is written down in ``words.py``; ``boostwords.py`` is the same with Spark. A file
is read once, and taken to be whole and to stay as it is. The exit code is 1 where the folder has no item.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from threading import Event

from words import Item, Malformed, Shift, Sums, is_feed, read_feed, shifts_of

__all__ = ["Analysis", "Shift", "Tables", "analyse"]

POLL_SECONDS = 0.5
TOP = 10


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The answer so far: every word's shift, the largest first, and what it comes from. Items of a URL that has been
    counted before are not among ``items``."""

    shifts: tuple[Shift, ...]
    items: int
    files: int
    malformed: int
    first_malformed: str | None = None


class Tables:
    """What has been read of a folder, kept so that only new files are read the next time.

    Memory: about 0.5 KB for each item that has a URL.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.malformed: list[Malformed] = []
        self._files: set[str] = set()
        self._listings: dict[str, tuple[str, int, Item]] = {}
        self._items = self._price = self._squares = 0
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._prices: defaultdict[str, int] = defaultdict(int)

    def read(self) -> bool:
        """Read the files that are new; whether there were any. Raises `OSError`."""
        names = (path.name for path in self.folder.iterdir() if is_feed(path.name) and path.is_file())
        new = sorted(set(names) - self._files)
        for name in new:
            # Read to its end before anything of it counts: a file that can't be read now may be read again.
            with (self.folder / name).open("rb") as lines:
                feed = list(read_feed(name, lines))
            self._files.add(name)
            for number, said in feed:
                if isinstance(said, Malformed):
                    self.malformed.append(said)
                else:
                    self._take(name, number, said)
        return bool(new)

    def _take(self, name: str, number: int, item: Item) -> None:
        """Count an item, in the place of another of its URL if it stands before that."""
        if item.url is not None:
            counted = self._listings.get(item.url)
            if counted is not None:
                if counted[:2] < (name, number):
                    return
                self._count(counted[2], -1)
            self._listings[item.url] = name, number, item
        self._count(item, 1)

    def _count(self, item: Item, times: int) -> None:
        price = times * item.price
        self._items += times
        self._price += price
        self._squares += price * item.price
        for word in item.words:
            self._counts[word] += times
            self._prices[word] += price

    def analysis(self) -> Analysis:
        """The answer from what has been read."""
        words = {word: (count, self._prices[word]) for word, count in self._counts.items() if count}
        sums = Sums(items=self._items, price=self._price, squares=self._squares, words=words)
        first = min(self.malformed, key=lambda line: (line.file, line.line), default=None)
        return Analysis(
            shifts=shifts_of(sums),
            items=self._items,
            files=len(self._files),
            malformed=len(self.malformed),
            first_malformed=None if first is None else str(first),
        )


def analyse(folder: Path) -> Analysis:
    """The answer from all files that lie in a folder. Raises `OSError`."""
    tables = Tables(folder)
    tables.read()
    return tables.analysis()


def as_json(shifts: Sequence[Shift]) -> str:
    """For scripts: one line."""
    return json.dumps([{"word": shift.word, "shift": shift.shift, "count": shift.count} for shift in shifts])


def as_table(analysis: Analysis, top: int) -> str:
    """For people: the largest and the smallest shifts."""
    lines = [f"{analysis.items:,} items in {analysis.files:,} files; malformed lines: {analysis.malformed:,}"]
    lines.append(f"{'shift':>9}  {'± error':>8}  {'listings':>9}  word")
    shown = extremes(analysis.shifts, top)
    for place, shift in enumerate(shown):
        if place == top and len(shown) < len(analysis.shifts):
            lines.append(f"{'...':>9}")
        lines.append(f"{shift.shift:>+9.2%}  {shift.error:>8.2%}  {shift.count:>9,}  {shift.word}")
    return "\n".join(lines)


def extremes(shifts: Sequence[Shift], top: int) -> Sequence[Shift]:
    """The first and the last of them, so many each; all where these would overlap."""
    return [*shifts[:top], *shifts[len(shifts) - top :]] if 2 * top < len(shifts) else shifts


def show(analysis: Analysis, *, json_lines: bool, top: int | None) -> None:
    """Print the answer, if there is one; a list for scripts also if it is empty."""
    if json_lines:
        print(as_json(analysis.shifts if top is None else extremes(analysis.shifts, top)), flush=True)
    elif analysis.items:
        if isinstance(sys.stdout, TextIOWrapper):  # a letter that a terminal lacks must not end the program
            sys.stdout.reconfigure(errors="backslashreplace")
        print(as_table(analysis, TOP if top is None else top), flush=True)


def remarks(folder: str, analysis: Analysis) -> Iterator[str]:
    """What is the matter with the files of a folder."""
    if analysis.first_malformed is not None:
        lines = "1 malformed line" if analysis.malformed == 1 else f"{analysis.malformed:,} malformed lines, the first"
        yield f"{lines}: {analysis.first_malformed}"
    if not analysis.items:
        found = f"no item in {analysis.files:,} files" if analysis.files else "no file *.jl or *.jsonl"
        yield f"{folder}: {found}; expected JSON lines, objects with a title and a price each"


def positive(text: str) -> int:
    """A number on the command line that can't be less than 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def command_line(description: str, folder: str) -> argparse.ArgumentParser:
    """The options of both engines; ``folder`` says what the items folder may be."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("items", metavar="ITEMS_FOLDER", help=folder)
    parser.add_argument("--follow", action="store_true", help="go on as files come, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one list a line, of word, shift and count")
    parser.add_argument("--top", type=positive, metavar="N", help=f"N largest and N smallest ({TOP}; all with --json)")
    return parser


def until_signalled() -> Event:
    """An event that Ctrl-C and SIGTERM set, where they would have ended the process."""
    stopped = Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stopped.set())
    return stopped


def set_aside(path: Path, lines: Sequence[Malformed]) -> None:
    """Write lines that are no items into a file of their own, in the place of what is in it. Raises `OSError`."""
    path.write_text("".join(f"{line.as_json()}\n" for line in lines))


def answer(tables: Tables, options: argparse.Namespace) -> Analysis:
    """Print the answer so far, and set aside what was asked for. Raises `OSError`."""
    analysis = tables.analysis()
    show(analysis, json_lines=options.json, top=options.top)
    for remark in remarks(options.items, analysis):
        print(remark, file=sys.stderr, flush=True)
    if options.malformed is not None:
        set_aside(options.malformed, tables.malformed)
    return analysis


def follow(tables: Tables, options: argparse.Namespace) -> None:
    """Print the answer whenever new files have come, until a signal. Raises `OSError`."""
    stopped = until_signalled()
    if tables.read():
        answer(tables, options)
    else:
        print(f"{options.items}: no file *.jl or *.jsonl yet; waiting for the first", file=sys.stderr, flush=True)
    while not stopped.wait(POLL_SECONDS):
        if tables.read():
            answer(tables, options)


def main() -> int:
    """Read the command line, then the folder; the exit code."""
    parser = command_line("Which words of a title move the price.", "folder of JSON lines files (*.jl, *.jsonl)")
    parser.add_argument("--malformed", type=Path, metavar="FILE", help="new file for the lines that are no items")
    options = parser.parse_args()
    folder = Path(options.items)
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder; expected the one that the feeds land in")
    if options.malformed is not None and options.malformed.resolve().parent == folder.resolve():
        parser.error(f"--malformed {options.malformed} would lie among the items; name a file outside {folder}")
    # Into a pipe that is closed, as by `head`, nothing more is to be said.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    tables = Tables(folder)
    try:
        if options.follow:
            follow(tables, options)
            return 0
        tables.read()
        analysis = answer(tables, options)
    except OSError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0 if analysis.items else 1


if __name__ == "__main__":
    sys.exit(main())
