"""The digest of a project's code: that of its folder is that of an egg, whoever has packed it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from scrapy_command import environment
from tiny_project import write_project

from scrapy_distributed.fleet.egg import build_egg

SETUP = (
    "from setuptools import find_packages, setup\n"
    "setup(name='tiny', version='3', packages=find_packages(), package_data={'tiny': ['data/*']},\n"
    "      entry_points={'scrapy': ['settings = tiny.settings']})\n"
)
ASK = (
    "import importlib, os, sys; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]);"
    "from scrapy_distributed.wire.code import code_of, egg_of; from tiny.spiders import Quick;"
    "print(code_of(Quick)); print(egg_of(Quick))"
)


def asked(place: Path, settings: str = "tiny.settings", **more: str) -> list[str]:
    """What a process says that has loaded the project from *place*."""
    variables = environment(place.parent, SCRAPY_SETTINGS_MODULE=settings, **more)
    # In a folder of its own: what ``python -c`` finds beside it comes first.
    command = [sys.executable, "-c", ASK, str(place), settings or "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables, cwd="/")
    return done.stdout.splitlines()


def code_in(place: Path, settings: str = "tiny.settings") -> str:
    return asked(place, settings)[0]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = write_project(tmp_path / "project")
    (folder / "tiny" / "spiders.py").write_text("class Quick: ...\n")  # without Scrapy, which takes long to import
    (folder / "tiny" / "data").mkdir()
    (folder / "tiny" / "data" / "made.py").write_text("not = a module\n")
    (folder / "tiny" / "parts").mkdir()
    (folder / "tiny" / "parts" / "__init__.py").write_text("")
    (folder / "tiny" / "parts" / "prices.py").write_text("FACTOR = 2\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").write_text("")
    return folder


def by_us(project: Path) -> bytes:
    return build_egg(project, "tiny.settings")


def by_setup_py(project: Path) -> bytes:
    (project / "setup.py").write_text(SETUP)
    return build_egg(project, "tiny.settings")


def by_scrapyd_deploy(project: Path) -> bytes:
    egg = project.parent / "theirs.egg"
    command = [str(Path(sys.executable).with_name("scrapyd-deploy")), "--build-egg", str(egg)]
    own = {"TMPDIR": str(project.parent)}  # it leaves a folder there
    subprocess.run(command, cwd=project, check=True, capture_output=True, env={**environment(project), **own})
    return egg.read_bytes()


@pytest.mark.parametrize("packed", [by_us, by_setup_py, by_scrapyd_deploy])
@pytest.mark.parametrize("is_unpacked", [False, True], ids=["zip", "unpacked"])
def test_an_egg_has_the_code_of_its_folder(
    project: Path, packed: Callable[[Path], bytes], is_unpacked: bool, tmp_path: Path
) -> None:
    here = code_in(project)
    assert len(here) == 16
    egg = tmp_path / "1.egg"
    egg.write_bytes(packed(project))
    if is_unpacked:
        zipfile.ZipFile(egg).extractall(tmp_path / "2.egg")
        egg = tmp_path / "2.egg"
    assert code_in(egg) == here
    for edited in ("spiders.py", "parts/prices.py", "parts/new.py"):
        with (project / "tiny" / edited).open("a") as file:
            file.write("# another\n")
        assert code_in(project) not in ("", here)
        here, before = code_in(project), here
        assert here != before
    (project / "tiny" / "data" / "made.py").write_text("in no package\n")
    (project / "tests" / "__init__.py").write_text("# not of its settings\n")
    assert code_in(project) == here


def test_of_an_egg_whose_version_is_not_told_nothing_is_said(project: Path) -> None:
    code, egg = asked(project)
    assert egg == "None"
    assert asked(project, SCRAPYD_EGG_VERSION="r1-main")[1] == f"Egg(version='r1-main', code='{code}')"
    assert asked(project, SCRAPYD_EGG_VERSION="../r1")[1] == "None"


def test_where_settings_or_sources_are_not_known_it_is_empty(project: Path, tmp_path: Path) -> None:
    assert code_in(project, "") == ""
    egg = tmp_path / "1.egg"
    egg.write_bytes(by_us(project))
    (project / "outside.py").write_text("from tiny.settings import *\n")
    assert code_in(project, "outside") not in ("", code_in(project))
    assert len(code_in(project, "outside")) == 16


def test_settings_in_a_package_of_their_own_count_as_well(project: Path) -> None:
    (project / "conf").mkdir()
    (project / "conf" / "__init__.py").write_text("from tiny.settings import *\n")
    before = code_in(project, "conf")
    (project / "conf" / "__init__.py").write_text("from tiny.settings import *\nBOT_NAME = 'other'\n")
    assert code_in(project, "conf") not in (before, "", code_in(project))
