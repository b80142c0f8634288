"""What the code in an egg needs, and a node will not find: told before it is sent, as far as the code itself tells."""

from __future__ import annotations

import ast
import io
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from scrapy_distributed.words import shortened

_SHOWN = 3  # files in which something was found


def lacking(egg: bytes, folder: Path, package: str) -> list[str]:
    """A sentence for each thing that the code in *egg* needs and that lies in the project's *folder* alone, or that
    can't be read from an egg. *package*: the top-level one of the settings."""
    with zipfile.ZipFile(io.BytesIO(egg)) as file:
        names = [name for name in file.namelist() if not name.startswith("EGG-INFO/")]
        texts = {name: file.read(name).decode("utf-8", "replace") for name in names if name.endswith(".py")}
    trees = {name: tree for name, text in texts.items() if (tree := _parsed(text)) is not None}
    return [*_modules(trees, names, folder, package), *_by_path(trees, package), *_data(texts, names, folder)]


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python thinks of the code is not asked
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError):  # the node will say so
            return None


def _modules(trees: dict[str, ast.Module], names: list[str], folder: Path, package: str) -> Iterator[str]:
    there = {name.split("/")[0].removesuffix(".py") for name in names} | set(sys.stdlib_module_names)
    users: dict[str, list[str]] = {}
    for name, tree in trees.items():
        for module in _imported(tree) - there:
            if (folder / f"{module}.py").is_file() or any((folder / module).glob("*.py")):
                users.setdefault(module, []).append(name)
    for module, found in sorted(users.items()):
        yield (
            f"{_listed(found)}: found an import of {module}, which lies beside scrapy.cfg and is not in the egg: move"
            f" it into the package (import {package}.{module}), or name it in the py_modules or packages of a setup.py"
        )


def _imported(tree: ast.Module) -> set[str]:
    """The top-level modules that it imports, wherever it does."""
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in found}


def _by_path(trees: dict[str, ast.Module], package: str) -> Iterator[str]:
    users = [
        name
        for name, tree in trees.items()
        if any(isinstance(node, ast.Name) and node.id == "__file__" for node in ast.walk(tree))
    ]
    if users:
        yield (
            f"{_listed(users)}: found __file__, and on a node the project is an egg, which is not unpacked: what lies"
            " in there can't be opened by its path; read it by its package:"
            f" pkgutil.get_data({package!r}, 'data/x.json')"
        )


def _data(texts: dict[str, str], names: list[str], folder: Path) -> Iterator[str]:
    """Files of its packages that a ``setup.py`` has left out, and whose names are in the code."""
    packages = [folder / name.split("/")[0] for name in texts if name.count("/") == 1 and name.endswith("/__init__.py")]
    files = (file for package in packages for file in sorted(package.rglob("*")) if file.is_file())
    left_out = [
        str(file.relative_to(folder))
        for file in files
        if file.suffix not in (".py", ".pyc") and file.relative_to(folder).as_posix() not in names
        and any(file.name in text for text in texts.values())
    ]  # fmt: skip
    if left_out:
        yield (
            f"{_listed(left_out)}: named in the code, and not in the egg: add what the nodes need to package_data in"
            " setup.py"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return shortened(", ".join(sorted(names)[:_SHOWN]) + more)
