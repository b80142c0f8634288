"""Which room of the package may import which: one direction, and no circle. And no test file imports another, and only
those in the folders for it start processes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import scrapy_distributed

PACKAGE = Path(scrapy_distributed.__file__).parent
EVERYWHERE = {"errors", "words", "password", "together"}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "words": set(),
    "together": set(),
    "password": set(),
    "role": set(),
    "fast": set(),
    "wire": set(),
    "agent": {"wire"},
    "warm": {"agent"},
    "items": {"wire"},
    "config": set(),
    "fleet": {"wire"},
    "ledger": {"wire"},
    "shared": {"wire", "ledger"},
    "joining": {"shared", "agent", "wire", "ledger"},
    "divert": {"wire", "config"},
    "guard": {"config", "fleet", "role", "fast"},
    "monitor": {"fleet", "ledger", "agent", "shared"},
    "results": {"ledger"},
    "dispatch": {"ledger", "fleet", "agent", "wire", "items", "config", "guard", "fast"},
    "coordinator": {"dispatch", "divert", "ledger", "shared", "fleet", "agent", "wire", "items", "feeds", "config",
                    "fast", "role"},
    "feeds": {"wire", "results"},
    "worker": {"divert", "wire", "items", "config", "guard", "feeds"},
    "middleware": {"coordinator", "worker", "guard", "config", "role"},
    "addon": {"middleware", "guard", "coordinator"},
    "commands": {"addon", "middleware", "config", "coordinator", "dispatch", "divert", "fleet", "ledger", "monitor",
                 "results", "agent", "wire", "worker", "feeds", "items", "shared", "joining"},
}  # fmt: skip
COMING: dict[str, tuple[set[str], set[str]]] = {
    "gateway": ({"fleet", "ledger", "monitor"}, {"commands"}),
}
"""Rooms that are not there yet: what they may import, and who may import them. gateway: a fleet that looks like one
Scrapyd."""
for coming, (arrows, callers) in COMING.items():
    ARROWS[coming] = arrows
    for caller in callers:
        ARROWS[caller] = {*ARROWS.get(caller, set()), coming}
ALONE = {
    "sqlite3": {
        "ledger/sqlite.py",
        "ledger/sqlite_store.py",
        "ledger/sqlite_schema.py",
        "ledger/sqlite_control.py",
        "ledger/reader.py",
        "ledger/wishes.py",
    },
    "treq": {"fleet/node.py"},
    "redis": {"shared/server.py"},
}


@cache
def imported(path: Path) -> tuple[str, ...]:
    """The modules, also those that are imported late, or for types alone."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "scrapy_distributed":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def files() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("name", files())
def test_a_file_imports_what_its_room_may(name: str) -> None:
    rooms = {module.split(".")[1] for module in imported(PACKAGE / name) if module.startswith("scrapy_distributed.")}
    room = room_of(name)
    assert rooms - {"__version__"} <= ARROWS[room] | EVERYWHERE | {room}
    others = {module.split(".")[0] for module in imported(PACKAGE / name)}
    assert not {other for other in others & set(ALONE) if name not in ALONE[other]}


def test_every_room_has_its_arrows_and_they_make_no_circle() -> None:
    there = {room_of(name) for name in files()}
    assert there <= set(ARROWS)
    assert set(ARROWS) - there <= set(COMING)
    left = {
        room: arrows | (EVERYWHERE - {room} if room not in EVERYWHERE else set()) for room, arrows in ARROWS.items()
    }
    while ground := [room for room, arrows in left.items() if not arrows & set(left)]:
        for room in ground:
            del left[room]
    assert not left, "these are in a circle, or above one"


@pytest.mark.parametrize("name", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()))
def test_a_folder_says_what_is_in_it(name: str) -> None:
    tree = ast.parse((PACKAGE / name / "__init__.py").read_text())
    said = ast.get_docstring(tree) or ""
    rooms = [path.stem for path in (PACKAGE / name).glob("*.py") if path.stem != "__init__"]
    assert [room for room in rooms if room not in said] == []


MOST_LINES, MOST_METHODS, MOST_OF_A_FUNCTION = 400, 25, 40


@pytest.mark.parametrize("name", files())
def test_a_file_is_read_in_one_go(name: str) -> None:
    text = (PACKAGE / name).read_text()
    assert len(text.splitlines()) <= MOST_LINES
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert sum(isinstance(part, functions) for part in node.body) <= MOST_METHODS, node.name
        elif isinstance(node, functions):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_OF_A_FUNCTION, node.name


# The tests


TESTS = Path(__file__).parent


def test_what_test_files_share_is_among_the_fakes() -> None:
    for path in TESTS.rglob("*.py"):
        assert re.findall(r"^ *(?:from|import) (test_\w+)", path.read_text(), re.MULTILINE) == [], path.name


def test_no_two_test_files_have_one_name() -> None:
    """In one process the second one would not be imported, and so not be run."""
    assert [name for name, files in Counter(path.name for path in TESTS.rglob("test_*.py")).items() if files > 1] == []


def given(conftest: Path) -> set[str]:
    """Names of fixtures, its own and those that it imports from the fakes."""
    tree = ast.parse(conftest.read_text())
    own = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    names = {node.name for node in own if any("fixture" in ast.unparse(mark) for mark in node.decorator_list)}
    told = (node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "__all__")
    return names.union(*map(ast.literal_eval, told))


def test_no_conftest_takes_the_name_of_a_fixture_above_it() -> None:
    """All that wants the upper one, in its whole folder, would get the other."""
    conftests = {path.parent: given(path) for path in TESTS.rglob("conftest.py")}
    assert "nodes" in conftests[TESTS]
    assert "in_project" in conftests[TESTS / "commands"]
    for folder, own in conftests.items():
        for above in set(folder.parents) & set(conftests):
            assert own & conftests[above] == set(), folder.name


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: os.fork() or os._exit(0),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.system("true"),
    ],
    ids=["subprocess", "fork", "spawn", "system"],
)
def test_no_process_is_started_outside_of_the_folders_for_it(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="only tests in the folders chaos, crawls, processes may do that"):
        start()
