"""The project as an egg, the form in which Scrapyd takes it. Nothing is written into the project's folder."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.words import last_line, shortened

logger = logging.getLogger(__name__)

_PKG_INFO = "Metadata-Version: 1.0\nName: project\nVersion: 1.0\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip file can hold: the same project gives the same egg


def build_egg(folder: Path, settings_module: str) -> bytes:
    """The egg of the Scrapy project in *folder*, whose settings are *settings_module*.

    With a ``setup.py``, what that says; else every package in *folder* with all its files, but no hidden ones, and none
    behind a link that leads out of *folder*: an egg can be read by everybody who may use the node.
    ``scrapyd-deploy`` would write a ``setup.py`` and ``build/`` into the project.

    Raises ``ConfigError`` if there is nothing to pack, or ``setup.py`` fails, or makes what Scrapyd can't use."""
    root = settings_module.partition(".")[0]
    if (folder / "setup.py").exists():
        return _checked(_by_setup_py(folder), folder, settings_module)
    packages = [init.parent for init in folder.glob("*/__init__.py")]
    if (folder / root).is_dir() and folder / root not in packages:
        packages.append(folder / root)
    files = {file for package in packages for file in _files(package)}
    files |= {file for file in (folder / f"{root}.py",) if file.is_file()}
    files = _without_links_out(folder, files)
    if not any(file.relative_to(folder).parts[0] in (root, f"{root}.py") for file in files):
        advice = _elsewhere(folder, root) or "nothing to deploy"
        raise ConfigError(f"no package {root!r} (of {settings_module!r} in scrapy.cfg) in {folder}: {advice}")
    return _zipped(folder, files, settings_module)


def _files(package: Path) -> Iterator[Path]:
    for file in package.rglob("*"):
        parts = file.relative_to(package).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        is_link_to_folder = file.is_symlink() and file.is_dir()  # rglob does not go into it
        if (file.is_file() or is_link_to_folder) and not hidden and file.suffix != ".pyc":
            yield file


def _without_links_out(folder: Path, files: set[Path]) -> set[Path]:
    """*files* without those that lie elsewhere, and without links to folders; what is left out is logged."""
    home = folder.resolve()
    inside = {file for file in files if file.is_file() and file.resolve().is_relative_to(home)}
    if out := sorted(str(file.relative_to(folder)) for file in files - inside):
        logger.warning(
            "Not in the egg: %s: %d links that lead out of %s, or to a folder; copy what the nodes need into the"
            " project", shortened(", ".join(out)), len(out), folder,
        )  # fmt: skip
    return inside


def _zipped(folder: Path, files: set[Path], settings_module: str) -> bytes:
    contents = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    contents |= {
        "EGG-INFO/PKG-INFO": _PKG_INFO.encode(),
        "EGG-INFO/entry_points.txt": f"[scrapy]\nsettings = {settings_module}\n".encode(),
        "EGG-INFO/zip-safe": b"\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as egg:
        for name in sorted(contents):
            egg.writestr(zipfile.ZipInfo(name, _EARLIEST), contents[name], zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _by_setup_py(folder: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="egg-") as temporary:
        command = [sys.executable, "-B", "setup.py", "-q", "egg_info", "--egg-base", temporary]
        command += ["build", "--build-base", f"{temporary}/build"]
        command += ["bdist_egg", "--bdist-dir", f"{temporary}/bdist", "--dist-dir", f"{temporary}/dist"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        eggs = list(Path(temporary).glob("dist/*.egg"))
        if done.returncode or len(eggs) != 1:
            reason = last_line(done.stderr or done.stdout)
            raise ConfigError(f"setup.py bdist_egg failed in {folder} ({reason}): mend setup.py, or remove it")
        return eggs[0].read_bytes()


def _elsewhere(folder: Path, root: str) -> str:
    """What to do where the package *root* lies in a folder of *folder*, as in a ``src`` layout; '' if it does not."""
    found = [*folder.glob(f"*/{root}/__init__.py"), *folder.glob(f"*/{root}.py")]
    if not found:
        return ""
    place = found[0].relative_to(folder).parts[0]
    return (
        f"it is in {place}/: move scrapy.cfg there, or let a setup.py say so: package_dir={{'': {place!r}}},"
        f" packages=find_packages({place!r})"
    )


def _checked(egg: bytes, folder: Path, settings_module: str) -> bytes:
    """*egg*, which Scrapyd can use. It asks an egg for its settings, and takes one that says nothing of them."""
    root = settings_module.partition(".")[0]
    with zipfile.ZipFile(io.BytesIO(egg)) as file:
        if not any(name.startswith((f"{root}/", f"{root}.py")) for name in file.namelist()) and (
            advice := _elsewhere(folder, root)
        ):  # else it may be installed on the nodes
            raise ConfigError(f"setup.py packs no {root!r} (of {settings_module!r} in scrapy.cfg): {advice}")
        written = [file.read(name).decode() for name in file.namelist() if name == "EGG-INFO/entry_points.txt"]
    points = ConfigParser()
    points.read_string("\n".join(written))
    found = points.get("scrapy", "settings", fallback="")
    if not found:
        raise ConfigError(
            "setup.py: found no entry point of scrapy, expected the settings of the project in its call of setup():"
            f" entry_points={{'scrapy': ['settings = {settings_module}']}}"
        )
    if found != settings_module:
        logger.warning(
            "setup.py says that the settings are %s, and here they are %s (scrapy.cfg, SCRAPY_PROJECT): the nodes use"
            " the former", shortened(found), settings_module,
        )  # fmt: skip
    return egg
