"""The example's folders: only the Scrapy project goes to the nodes, and the readme shows what is there."""

from __future__ import annotations

import io
import re
import zipfile

from crawling import EXAMPLE

from scrapy_distributed.fleet.egg import build_egg

README = (EXAMPLE.parent / "README.md").read_text(encoding="utf-8")
TREE = README.split("```text\nexample_project/\n")[1].split("\n```")[0]


def test_only_the_scrapy_project_goes_to_the_nodes() -> None:
    with zipfile.ZipFile(io.BytesIO(build_egg(EXAMPLE, "properties.settings"))) as egg:
        assert {name.partition("/")[0] for name in egg.namelist()} == {"properties", "EGG-INFO"}


def test_the_tree_in_the_readme_names_every_folder_and_only_what_is_there() -> None:
    shown = re.findall(r"^ +([\w./]+)  ", TREE, re.MULTILINE)
    assert [name for name in shown if not (EXAMPLE / name).exists()] == []
    folders = {program.parent.name for program in EXAMPLE.glob("*/*.py")}
    assert folders == {name.split("/")[0] for name in shown if "/" in name}
