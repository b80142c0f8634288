"""What of a project's folder is in its egg."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import pytest
from tiny_project import write_project

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.egg import build_egg


def names(folder: Path) -> set[str]:
    egg = zipfile.ZipFile(io.BytesIO(build_egg(folder, "tiny.settings")))
    return {name for name in egg.namelist() if not name.startswith("EGG-INFO/")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


PLAIN = {"tiny/__init__.py", "tiny/settings.py", "tiny/spiders.py"}


def test_what_is_not_hidden(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (project / "tiny" / ".secret").write_text("x")
    (project / "tiny" / "data").mkdir()
    (project / "tiny" / "data" / "towns.csv").write_text("x")
    assert names(project) == {*PLAIN, "tiny/data/towns.csv"}
    assert not caplog.records


def test_links_that_lead_out_of_the_project_are_left_out_and_said(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "__init__.py").write_text("KEY = 1")
    (outside / "key.pem").write_text("KEY")
    (project / "tiny" / "key.pem").symlink_to(outside / "key.pem")
    (project / "tiny" / "twice.pem").symlink_to("key.pem")
    (project / "tiny" / "up.py").symlink_to("../../outside/__init__.py")
    (project / "tiny" / "folder").symlink_to(outside)
    (project / "shared").symlink_to(outside)
    (project / "tiny" / "gone.py").symlink_to("nowhere")
    (project / "tiny" / "same.py").symlink_to("spiders.py")
    with caplog.at_level(logging.WARNING):
        assert names(project) == {*PLAIN, "tiny/same.py"}
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        "Not in the egg: shared/__init__.py, shared/key.pem, tiny/folder, tiny/key.pem, tiny/twice.pem, tiny/up.py: 6"
    )
    assert "copy what the nodes need into the project" in said


def test_a_project_behind_a_link_is_inside_itself(project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project)
    assert names(tmp_path / "link") == PLAIN


def test_a_package_that_is_elsewhere_leaves_nothing_to_deploy(project: Path, tmp_path: Path) -> None:
    (project / "tiny").rename(tmp_path / "tiny")
    (project / "tiny").symlink_to(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="no package 'tiny'"):
        build_egg(project, "tiny.settings")
