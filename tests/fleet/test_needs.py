"""What the code in an egg needs, and a node will not find."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from tiny_project import write_project

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.egg import build_egg
from scrapy_distributed.fleet.needs import lacking


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def said(project: Path, without: str = "") -> list[str]:
    """Of the egg of *project*, and *without* a file that its setup.py leaves out, say."""
    egg = io.BytesIO(build_egg(project, "tiny.settings"))
    left = io.BytesIO()
    with zipfile.ZipFile(egg) as source, zipfile.ZipFile(left, "w") as target:
        for name in source.namelist():
            if name != without:
                target.writestr(name, source.read(name))
    return lacking(left.getvalue(), project, "tiny")


def code(project: Path, text: str, name: str = "parts.py") -> None:
    (project / "tiny" / name).write_text(text)


def test_a_project_that_has_all_is_not_spoken_of(project: Path) -> None:
    (project / "helpers.py").write_text("")  # nobody imports it
    (project / "json.py").write_text("")  # this is Python's
    (project / "shared").mkdir()
    (project / "shared" / "__init__.py").write_text("")  # this is packed
    (project / "tiny" / "towns.csv").write_text("")
    code(project, "import json, scrapy.http, tiny.settings, shared\nfrom . import helpers\nfrom .helpers import one\n")
    code(project, "def broken(:", "broken.py")
    code(project, "PATTERN = '\\d'\n", "escape.py")
    code(project, "import pkgutil\nTOWNS = pkgutil.get_data('tiny', 'towns.csv')\nx = '__file__'\n", "data.py")
    assert said(project) == []


@pytest.mark.parametrize("text", ["import helpers", "from helpers.one import two", "def f():\n    import helpers as h"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_a_module_beside_scrapy_cfg(project: Path, text: str, is_folder: bool) -> None:
    if is_folder:
        (project / "helpers").mkdir()
    (project / ("helpers/one.py" if is_folder else "helpers.py")).write_text("")
    code(project, text)
    assert said(project) == [
        "tiny/parts.py: found an import of helpers, which lies beside scrapy.cfg and is not in the egg: move it into"
        " the package (import tiny.helpers), or name it in the py_modules or packages of a setup.py"
    ]


def test_files_that_are_opened_by_their_path(project: Path) -> None:
    for number in range(5):
        code(project, "from pathlib import Path\nHERE = Path(__file__).parent\n", f"part{number}.py")
    (sentence,) = said(project)
    assert sentence == (
        "tiny/part0.py, tiny/part1.py, tiny/part2.py and 2 more: found __file__, and on a node the project is an egg,"
        " which is not unpacked: what lies in there can't be opened by its path; read it by its package:"
        " pkgutil.get_data('tiny', 'data/x.json')"
    )


def test_data_that_a_setup_py_leaves_out(project: Path) -> None:
    for name in ("towns.csv", "README.txt"):
        (project / "tiny" / name).write_text("")
    code(project, "import pkgutil\nTOWNS = pkgutil.get_data('tiny', 'towns.csv')\n")
    assert said(project, without="tiny/README.txt") == []
    assert said(project, without="tiny/towns.csv") == [
        "tiny/towns.csv: named in the code, and not in the egg: add what the nodes need to package_data in setup.py"
    ]


def test_a_package_in_a_folder_of_its_own(project: Path) -> None:
    (project / "src").mkdir()
    (project / "tiny").rename(project / "src" / "tiny")
    with pytest.raises(
        ConfigError, match=r"no package 'tiny' .*: it is in src/: move scrapy.cfg there, or let a setup"
    ):
        build_egg(project, "tiny.settings")
