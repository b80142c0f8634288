"""The README against the code: settings, stats, commands, options, defaults and versions, in both directions."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy.commands import ScrapyCommand
from scrapy.commands.crawl import Command as Crawl
from scrapy.commands.genspider import Command as Genspider
from scrapy.commands.startproject import Command as Startproject
from scrapy.settings import Settings
from scrapyd.config import Config as ScrapydConfig

from scrapy_distributed import __version__
from scrapy_distributed.commands.batches import ACTIONS
from scrapy_distributed.commands.batches import Command as Batches
from scrapy_distributed.commands.fleet import Command as Fleet
from scrapy_distributed.commands.monitor import Command as Monitor
from scrapy_distributed.commands.worker import Command as Worker
from scrapy_distributed.config.config import SETTINGS, Config
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.monitor.node_state import HEAVY_BACKLOG
from scrapy_distributed.shared.address import CERTIFICATE, KEY, PASSWORD, USERNAME
from scrapy_distributed.wire import receipt
from scrapy_distributed.wire.job import MAX_ARGUMENTS_BYTES
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES, MAX_JSON_BYTES, PREFIX, START_URL, decode_payload
from scrapy_distributed.wire.reasons import REASONS, TO_A_NODE
from scrapy_distributed.worker import targets
from scrapy_distributed.worker.outcomes import LOST

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "scrapy_distributed").rglob("*.py"))

OURS: dict[str, type[ScrapyCommand]] = {"monitor": Monitor, "fleet": Fleet, "batches": Batches, "worker": Worker}
COMMANDS: dict[str, type[ScrapyCommand]] = {**OURS, "crawl": Crawl, "startproject": Startproject}
SUBCOMMANDS: dict[str, tuple[str, ...]] = {
    "fleet": ("up", "password", "deploy", "versions", "prune", "doctor", "cancel", "drain", "undrain"),
    "batches": ACTIONS,
}  # fmt: skip
SECTIONS = {
    "monitor": ["### scrapy monitor"],
    "fleet": [
        "### scrapy fleet up",
        "### scrapy fleet password",
        "### scrapy fleet deploy",
        "### scrapy fleet versions",
        "### scrapy fleet doctor",
        "### scrapy fleet cancel",
        "### scrapy fleet drain",
    ],
    "batches": ["### scrapy batches"],
    "worker": ["### scrapy worker"],
}
TYPES = {bool: "bool", int: "int", float: "float", tuple: "list", dict: "dict", str: "str", type(None): "JSON"}


# --- what the README says ---


def section(heading: str) -> str:
    """The text below *heading*, up to the next one of its level or above."""
    level = heading.index(" ")
    _, found, rest = README.partition(f"\n{heading}\n")
    assert found, f"the README has no {heading!r}"
    return re.split(rf"\n#{{1,{level}}} ", rest)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].startswith("`")]


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def code_lines(word: str) -> list[list[str]]:
    """The lines of shell blocks that start with *word*, as a shell splits them."""
    lines = [line.strip() for block in code_blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{word} ")]


# --- what the code says ---


def default_as_written(value: Any) -> str:
    """A default as a user writes it."""
    if isinstance(value, tuple):
        value = list(value)
    return '""' if value == "" else repr(value)


def stats_in(source: str) -> Iterator[str]:
    """The names of the ``distributed/`` stats that *source* sets; what varies is ``<so>``."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if not node.func.attr.endswith("_value"):
            continue
        name = node.args[0]
        parts: list[ast.expr] = name.values if isinstance(name, ast.JoinedStr) else [name]
        names = [""]
        for part in parts:
            names = [one + more for one in names for more in _values(part, tree)]
        yield from (one for one in names if one.startswith("distributed/"))


def _values(part: ast.expr, tree: ast.Module) -> list[str]:
    if isinstance(part, ast.Constant):
        return [str(part.value)]
    if not isinstance(part, ast.FormattedValue):
        return ["?"]
    variable = ast.unparse(part.value)
    if variable in PLACEHOLDERS:
        return [PLACEHOLDERS[variable]]
    if variable == "name":  # the balance
        return list(Balance(**dict.fromkeys(Balance.__dataclass_fields__, 0)).as_dict())
    choices = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [variable]:
            branches = (node.value.body, node.value.orelse) if isinstance(node.value, ast.IfExp) else (node.value,)
            choices += [str(branch.value) for branch in branches if isinstance(branch, ast.Constant)]
    assert choices, f"a stat with {{{variable}}} in its name: tell this test what it stands for"
    return choices


PLACEHOLDERS = {
    "member.name": "<node>",
    "key": "<stat>",
    "reason": "<reason>",
    "outcome.value": "<state>",
    "trial.value": "<found>",
    "scheme": "<scheme>",
}


def parser_of(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"scrapy {name}", conflict_handler="resolve", exit_on_error=False)
    command = COMMANDS[name]()
    command.settings = Settings()
    command.add_options(parser)
    return parser


def own_options(name: str) -> dict[str, argparse.Action]:
    """The options of a command of ours, without those of every Scrapy command, and those that nobody is to give."""
    scrapys = argparse.ArgumentParser(conflict_handler="resolve")
    plain = Genspider()
    plain.settings = Settings()
    ScrapyCommand.add_options(plain, scrapys)
    known = {option for action in scrapys._actions for option in action.option_strings}
    actions = [action for action in parser_of(name)._actions if not known & set(action.option_strings)]
    shown = [action for action in actions if action.help != argparse.SUPPRESS]
    return {option: action for action in shown for option in action.option_strings}


# --- settings ---


def test_the_table_has_every_setting_once_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows(section("## Settings"))] == [setting.name for setting in SETTINGS]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_has_its_type_default_and_unit(setting: Any) -> None:
    _, kind, default, unit, meaning = next(row for row in rows(section("## Settings")) if row[0] == f"`{setting.name}`")
    assert kind.split()[0] == TYPES[type(setting.default)]
    assert default == f"`{default_as_written(setting.default)}`"
    assert unit == setting.unit
    assert meaning


def test_no_setting_of_ours_is_named_that_does_not_exist() -> None:
    named = set(re.findall(r"\bDISTRIBUTED_[A-Z_]+", README))
    assert named <= {setting.name for setting in SETTINGS} | {USERNAME, PASSWORD, CERTIFICATE, KEY}


def test_python_blocks_are_settings_that_are_accepted() -> None:
    blocks = code_blocks("python")
    assert blocks
    for block in blocks:
        values: dict[str, Any] = {}
        exec(block, {}, values)
        values.update(values.pop("custom_settings", {}))
        Config.from_settings(Settings(values))


# --- stats ---


def test_stats_are_those_that_the_code_sets() -> None:
    documented = re.findall(r"^\| `(distributed/[^`]+)` \|", section("## Stats"), re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == {name for path in SOURCES for name in stats_in(path.read_text(encoding="utf-8"))}


def test_no_stat_is_named_elsewhere_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `(distributed/[^`]+)` \|", section("## Stats"), re.MULTILINE))
    assert set(re.findall(r"`(distributed/[^`*]+)`", README)) <= documented


# --- outcomes ---


def test_reasons_of_failed_downloads_are_listed() -> None:
    documented = {row[0].split("`")[1] for row in rows(section("## What becomes of a request"))}
    assert {*REASONS.values(), LOST, TO_A_NODE} <= documented


# --- commands ---


@pytest.mark.parametrize("line", code_lines("scrapy"), ids=shlex.join)
def test_a_command_line_names_what_exists(line: list[str]) -> None:
    _, name, *arguments = line
    assert name in COMMANDS
    opts, rest = parser_of(name).parse_known_args(arguments)
    assert [argument for argument in rest if argument.startswith("-")] == []
    if name in SUBCOMMANDS and rest:
        assert rest[0] in SUBCOMMANDS[name]
    for assignment in opts.set:
        variable, equals, value = assignment.partition("=")
        assert equals
        assert value
        if variable == START_URL:
            assert decode_payload(value)


def test_every_command_and_subcommand_is_shown() -> None:
    shown = {tuple(line[1:3]) for line in code_lines("scrapy")}
    assert {one[0] for one in shown} == set(COMMANDS)
    assert {(name, action) for name, actions in SUBCOMMANDS.items() for action in actions} <= shown


def test_scrapy_commands_are_registered_under_their_names() -> None:
    table = PYPROJECT.split('[project.entry-points."scrapy.commands"]')[1].split("\n[")[0]
    registered = dict(re.findall(r'^(\w+) = "([^"]+)"', table, re.MULTILINE))
    assert registered == {name: f"{command.__module__}:Command" for name, command in OURS.items()}


@pytest.mark.parametrize("name", OURS)
def test_options_are_those_of_the_command(name: str) -> None:
    documented = [row[0].strip("`") for heading in SECTIONS[name] for row in rows(section(heading))]
    expected = []
    for option, action in own_options(name).items():
        takes_value = action.nargs != 0
        expected.append(f"{option} {action.metavar or action.dest.upper()}" if takes_value else option)
    assert sorted(documented) == sorted(expected)


@pytest.mark.parametrize("name", OURS)
def test_options_have_their_defaults(name: str) -> None:
    options = own_options(name)
    for heading in SECTIONS[name]:
        for option, meaning in rows(section(heading)):
            default = options[option.strip("`").split()[0]].default
            if default not in (None, False, ""):
                shown = f"{default:g}" if isinstance(default, int | float) else f"`{default}`"
                assert f"{shown} if not given" in meaning, option


def test_no_option_is_named_elsewhere_that_does_not_exist() -> None:
    known = {option for name in COMMANDS for action in parser_of(name)._actions for option in action.option_strings}
    for script in (ROOT / "example_project").glob("*/*.py"):
        known.update(re.findall(r'add_argument\("(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    named = set(re.findall(r"`(--[a-z][a-z-]*)", README))
    assert named <= known


# --- make, versions, limits ---


def test_the_scrapyd_conf_is_read_by_scrapyd_as_it_is_meant(tmp_path: Path) -> None:
    (block,) = code_blocks("ini")[:1]
    assert block.startswith("[scrapyd]\n")
    file = tmp_path / "scrapyd.conf"
    file.write_text(block)
    config = ScrapydConfig(extra_sources=[str(file)])
    names = ("bind_address", "logs_dir", "items_dir", "username", "password")
    assert [config.get(name) for name in names] == ["0.0.0.0", "logs", "", "crawler", "secret"]
    assert config.getint("jobs_to_keep") == 100


def test_make_targets_and_variables_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \??=", MAKEFILE, re.MULTILINE))
    lines = code_lines("make")
    assert {"demo", "test"} <= {line[1] for line in lines}
    for _, *words in lines:
        assert {word for word in words if "=" not in word} <= targets
        assert {word.partition("=")[0] for word in words if "=" in word} <= variables


def test_versions_are_those_of_the_package() -> None:
    python = re.search(r'^requires-python = ">=([\d.]+)"', PYPROJECT, re.MULTILINE)
    scrapy = re.search(r'"Scrapy>=([\d.]+)"', PYPROJECT)
    scrapyd = re.search(r'"scrapyd>=([\d.]+)"', PYPROJECT)
    setuptools = re.search(r'"(setuptools<\d+)"', PYPROJECT)
    assert python
    assert scrapy
    assert scrapyd
    assert setuptools
    assert re.findall(r"Python >= ([\d.]+\d)", README) == [python[1]]
    assert re.findall(r"Scrapy >= ([\d.]+\d)", README) == [scrapy[1]]
    assert re.findall(r"\) ([\d.]+\d) or newer", README) == [scrapyd[1]]
    assert set(re.findall(r"setuptools<\d+", README)) == {setuptools[1]}
    assert f'version = "{__version__}"' in PYPROJECT
    assert f"({__version__}, not released yet)" in README
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__


def test_the_name_to_install_is_the_package() -> None:
    name = re.search(r'^name = "([^"]+)"', PYPROJECT, re.MULTILINE)
    assert name
    packages = {word.partition("[")[0] for line in code_lines("pip") for word in line[2:]}
    assert name[1] in packages
    assert not [package for package in packages if package.startswith("scrapy-distributed") and package != name[1]]


def test_numbers_of_the_limits() -> None:
    limits = section("## Limits")
    assert f"{MAX_ARGUMENT_BYTES:,} bytes" in limits
    assert f"{MAX_ARGUMENTS_BYTES:,} bytes" in limits
    assert f"than {MAX_JSON_BYTES // 2**20} MiB unpacked" in limits
    assert f"{targets.ROOM_BYTES // 2**20} MiB of them ({targets.ROOM_PACKED_BYTES // 2**20} MiB compressed)" in limits
    assert f"at most {receipt.MAX_FEEDS:,} feed files and {receipt.MAX_STATS:,} stats" in limits
    assert f"at most {receipt.MAX_BYTES // 2**20} MiB" in limits
    assert f"`{PREFIX}`" in README
    assert f"more than {HEAVY_BACKLOG} jobs" in README


def test_links_inside_the_readme_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_the_activation_lines_lead_to_classes() -> None:
    for path in re.findall(r'"(scrapy_distributed\.[\w.]+)": \d+', README):
        module, _, name = path.rpartition(".")
        __import__(module)
        assert hasattr(sys.modules[module], name)
