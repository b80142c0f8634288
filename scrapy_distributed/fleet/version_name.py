"""What a version is called when it is deployed: as ``scrapyd-deploy`` calls it, so that each is newer than those
before, whichever of the two has sent them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.words import last_line


def version_name(asked: str, folder: Path, now: float) -> str:
    """*asked*; where that is ``GIT`` or ``HG``, what the repository of *folder* says: the description of its commit, or
    the number of that, and the branch; where it is empty, *now* in whole seconds since 1970.

    Raises ``ConfigError`` where the repository says nothing."""
    if asked == "GIT":
        return f"{_git_commit(folder)}-{_said(folder, 'git', 'rev-parse', '--abbrev-ref', 'HEAD')}"
    if asked == "HG":
        return f"r{_said(folder, 'hg', 'tip', '--template', '{rev}')}-{_said(folder, 'hg', 'branch')}"
    return asked or str(int(now))


def _git_commit(folder: Path) -> str:
    try:
        return _said(folder, "git", "describe")
    except ConfigError:  # no tag leads there
        return f"r{_said(folder, 'git', 'rev-list', '--count', 'HEAD')}"


def _said(folder: Path, *command: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        said, problem = done.stdout.strip(), last_line(done.stderr)
    except OSError as error:
        said, problem = "", str(error)
    if not said or done.returncode:
        name = command[0].upper()
        raise ConfigError(
            f"version = {name} in scrapy.cfg: {' '.join(command)} says nothing in {folder} ({problem}): expected a"
            " repository with a commit; or give a version: --version NAME"
        )
    return said
