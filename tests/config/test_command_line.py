"""What of a command line goes with the jobs, what stays, and what can't."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider
from scrapy.commands import ScrapyCommand
from scrapy.settings import Settings

from scrapy_distributed import Addon
from scrapy_distributed.config.command_line import CommandLine, is_secret
from scrapy_distributed.config.config import Config
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.middleware import DistributedSpiderMiddleware

SECRETS = ["ZYTE_API_KEY", "aws_secret_access_key", "FTP_PASSWORD", "http_pass", "ACCESS_TOKEN", "Client_Secret",
           "token", "password", "SHUB_APIKEY"]  # fmt: skip
PLAIN = ["category", "DOWNLOAD_DELAY", "AWS_ACCESS_KEY_ID", "turkey", "BYPASS", "KEYWORDS", "token_url", "keys"]
OWN_MODULE = """\
ADDONS = {"scrapy_distributed.Addon": 500}
SPIDER_MIDDLEWARES = {"scrapy.spidermiddlewares.depth.DepthMiddleware": 7}
DOWNLOAD_DELAY = 1
ITEM_PIPELINES = {"json.JSONDecoder": 1}
SHARED = object()
CITIES = ["a", "b"]
FTP_PASSWORD = "x"
"""


def read(settings: Settings | None = None, _project: dict[str, Any] | None = None, **options: str) -> CommandLine:
    """That of a command with the *options* ``-s``, in a project with these settings."""
    settings = settings or Settings(_project)
    settings.setdict(options, priority="cmdline")
    return CommandLine.read(settings, Config.from_settings(settings), {})


def arguments(*, worker_args: str = "", **given: Any) -> CommandLine:
    return CommandLine.read(Settings(), Config.from_settings(Settings({"DISTRIBUTED_WORKER_ARGS": worker_args})), given)


# Arguments


def test_all_arguments_travel() -> None:
    command = arguments(category="tea", pages="3", empty="")
    assert command.args == {"category": "tea", "pages": "3", "empty": ""}
    assert command.summary == "for each job: -a category, -a empty, -a pages"
    assert command.warnings(scrapyds=True) == []


class Level(str, enum.Enum):
    INFO = "info"


@pytest.mark.parametrize("value", [3, None, False, 1.5, ["tea"], b"tea", Level.INFO, Path("tea"), object()])
def test_what_would_arrive_as_something_else_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        arguments(category="tea", pages=value)
    assert f"'pages': found a value of type {type(value).__name__}, expected a string" in str(caught.value)


def test_the_number_of_the_batch_is_ours() -> None:
    with pytest.raises(ConfigError, match="'batch': found one of yours, and each job has the number of its batch"):
        arguments(batch="7")


def test_what_scrapyd_gives_each_of_its_jobs_does_not_travel() -> None:
    assert arguments(_job="1", category="tea").args == {"category": "tea"}


# Secrets


@pytest.mark.parametrize("name", SECRETS)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_named_and_go_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings()
    settings.setdict({"FTP_PASSWORD": "s3cret", "USER_AGENT": "me"}, priority="cmdline")
    given = {"api_key": "s3cret", "category": "tea"}
    command = CommandLine.read(settings, Config.from_settings(settings), given)
    assert (dict(command.args), dict(command.settings)) == ({"category": "tea"}, {"USER_AGENT": "me"})
    assert command.summary == "for each job: -a category, -s USER_AGENT"
    (warning,) = command.warnings(scrapyds=True)
    (of_joined,) = command.warnings(scrapyds=False, joined=True)
    assert of_joined.startswith(warning.partition(": ")[0])
    assert "not told to workers" in of_joined
    assert warning.startswith("-a api_key, -s FTP_PASSWORD: not sent to the nodes")
    assert "s3cret" not in f"{warning}{command!r}"


def test_workers_on_this_machine_are_told_secrets_by_a_pipe() -> None:
    settings = Settings()
    settings.setdict({"FTP_PASSWORD": "s3cret", "USER_AGENT": "me"}, priority="cmdline")
    command = CommandLine.read(settings, Config.from_settings(settings), {"api_key": "k", "category": "tea"})
    assert command.private == ("-a", "api_key=k", "-s", "FTP_PASSWORD=s3cret")
    assert command.warnings(scrapyds=False) == []


def test_what_is_no_secret_in_spite_of_its_name_travels_when_it_is_named() -> None:
    command = arguments(worker_args="sort_key", sort_key="price", api_key="x")
    assert command.args == {"sort_key": "price"}
    assert command.secrets == ("-a api_key",)


# Settings of the command line


def test_settings_of_the_command_line_travel_but_those_of_this_crawl() -> None:
    command = read(
        _project={"DOWNLOAD_DELAY": 1, "RETRY_TIMES": 5, "DISTRIBUTED_BATCH_SIZE": 5, "SETTINGS_MODULE": "json"},
        DOWNLOAD_DELAY="2", USER_AGENT="me, you", OWN="x", LOG_LEVEL="INFO", JOBDIR="", CLOSESPIDER_ITEMCOUNT="5",
        FEEDS='{"out.jl": {}}', FEED_URI="x", FEED_FORMAT="jl", FEED_EXPORT_FIELDS="a,b", DISTRIBUTED_LEDGER="x",
    )  # fmt: skip
    assert "RETRY_TIMES" in command.settings  # no project's module has it
    assert {name: text for name, text in command.settings.items() if name != "RETRY_TIMES"} == {
        "DOWNLOAD_DELAY": "2", "USER_AGENT": "me, you", "OWN": "x", "FEED_EXPORT_FIELDS": "a,b"
    }  # fmt: skip
    assert command.stay == ("CLOSESPIDER_ITEMCOUNT", "FEEDS", "FEED_FORMAT", "FEED_URI", "JOBDIR", "LOG_LEVEL")
    assert command.summary.endswith(
        "; for the crawl as a whole: -s CLOSESPIDER_ITEMCOUNT; for this crawl alone: -s FEEDS, -s FEED_FORMAT,"
        " -s FEED_URI, -s JOBDIR, -s LOG_LEVEL"
    )


def test_a_dict_of_the_command_line_travels_as_it_was_given() -> None:
    settings = Settings()
    pipelines = '{"shop.Pipeline": 5, "shop.Other": null}'
    given = {"SPIDER_MIDDLEWARES": '{"scrapy.spidermiddlewares.depth.DepthMiddleware": 1}', "ITEM_PIPELINES": pipelines}
    settings.setdict(given, priority="cmdline")
    Addon().update_settings(settings)  # which puts ours among them
    assert read(settings).settings == given


def test_what_the_spider_or_an_add_on_sets_does_not_travel() -> None:
    class Own(Spider):
        name = "own"
        custom_settings = {"DOWNLOAD_DELAY": 3}

    settings = Settings({"DOWNLOAD_DELAY": 2})
    Own.update_settings(settings)
    settings.set("CONCURRENT_ITEMS", 1, priority="addon")
    settings.set("LOG_ENABLED", False, priority="command")
    assert read(settings) == CommandLine()


def test_of_two_at_the_same_priority_that_for_workers_wins() -> None:
    of_workers = {"DISTRIBUTED_WORKER_SETTINGS": '{"DOWNLOAD_DELAY": 1, "RETRY_TIMES": 5}'}
    assert read(_project=of_workers, DOWNLOAD_DELAY="2").settings == {"DOWNLOAD_DELAY": "2"}
    assert read(DOWNLOAD_DELAY="2", USER_AGENT="me", **of_workers).settings == {"USER_AGENT": "me"}
    assert read(Settings({"DOWNLOAD_DELAY": 2, "USER_AGENT": "me", **of_workers})).settings == {"USER_AGENT": "me"}


def test_the_command_line_as_scrapy_reads_it() -> None:
    class Command(ScrapyCommand):
        def short_desc(self) -> str:
            return ""

        def run(self, args: Any, opts: Any) -> None: ...

    import argparse

    command = Command()
    command.settings = Settings()
    parser = argparse.ArgumentParser(conflict_handler="resolve")
    command.add_options(parser)
    options = parser.parse_args(["-s", "DOWNLOAD_DELAY=2", "-s", "X=a=b", "-L", "INFO", "--logfile", "x"])
    command.process_options([], options)
    found = read(command.settings)
    assert (found.settings, found.stay) == (
        {"DOWNLOAD_DELAY": "2", "X": "a=b"}, ("LOG_ENABLED", "LOG_FILE", "LOG_LEVEL")
    )  # fmt: skip


# Settings of a script


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Its settings, as ``get_project_settings`` makes them."""
    (tmp_path / "own_module_settings.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    settings = Settings()
    settings.setmodule("own_module_settings")
    settings.setdict({"SETTINGS_MODULE": "own_module_settings", "EDITOR": "vi"})
    monkeypatch.delitem(sys.modules, "own_module_settings")
    return settings


def test_what_the_project_has_itself_does_not_travel(project: Settings) -> None:
    Addon().update_settings(project)
    assert DistributedSpiderMiddleware in project.getdict("SPIDER_MIDDLEWARES")
    assert read(project.copy()) == CommandLine()


def test_what_a_script_changes_in_the_projects_settings_travels(project: Settings) -> None:
    project.set("DOWNLOAD_DELAY", 2)
    project.set("ITEM_PIPELINES", {json.JSONEncoder: 5})
    project.set("USER_AGENT", "me")
    project.set("FTP_PASSWORD", "y")
    project.set("CITIES", ["a"])
    command = read(project)
    assert command.settings == {
        "DOWNLOAD_DELAY": "2", "ITEM_PIPELINES": '{"json.encoder.JSONEncoder": 5}', "USER_AGENT": "me"
    }  # fmt: skip
    assert (command.secrets, command.no_text) == (("-s FTP_PASSWORD",), ("CITIES",))


def test_all_settings_of_a_script_without_a_project_travel() -> None:
    given = {
        "DOWNLOAD_DELAY": 0.5, "ROBOTSTXT_OBEY": True, "RETRY_HTTP_CODES": [500, 503], "HTTPCACHE_DIR": Path("/x"),
        "OWN": "text", "DEFAULT_REQUEST_HEADERS": {"Accept": "a,b"}, "STATS_CLASS": json.JSONDecoder,
        "SPIDER_MODULES": ["shop"], "ADDONS": {"scrapy_distributed.Addon": 500, "shop.Own": 1},
    }  # fmt: skip
    command = read(Settings(given))
    assert command.settings == {
        "DOWNLOAD_DELAY": "0.5", "ROBOTSTXT_OBEY": "True", "RETRY_HTTP_CODES": "500,503", "HTTPCACHE_DIR": "/x",
        "OWN": "text", "DEFAULT_REQUEST_HEADERS": '{"Accept": "a,b"}', "STATS_CLASS": "json.decoder.JSONDecoder",
        "ADDONS": '{"shop.Own": 1}',
    }  # fmt: skip
    assert command.stay == ("SPIDER_MODULES",)
    again = Settings()
    again.setdict(command.settings, priority="cmdline")
    for name in ("RETRY_HTTP_CODES", "ROBOTSTXT_OBEY", "DOWNLOAD_DELAY", "DEFAULT_REQUEST_HEADERS"):
        getter = {list: again.getlist, bool: again.getbool, float: again.getfloat, dict: again.getdict}[
            type(given[name])
        ]
        assert str(getter(name)) == str(given[name]).replace("500, 503", "'500', '503'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CITIES", ["a", "b"]),  # the spider may take it as it is
        ("LIMIT", 3),
        ("OWN", {"a": 1}),
        ("ITEM_PIPELINES", {"__main__.Pipeline": 1}),
        ("FEED_URI_PARAMS", lambda params, spider: None),
        ("FEED_EXPORT_FIELDS", ["a,b"]),
        ("USER_AGENT", None),
    ],
)
def test_what_no_command_line_can_give_is_named(name: str, value: Any) -> None:
    command = read(Settings({name: value}))
    assert command.settings == {}
    (warning,) = command.warnings(scrapyds=True)
    assert warning.startswith(f"{name}: not sent to the nodes, as this script sets a value that no -s NAME=VALUE can")


# What is said


def test_nothing_is_said_where_there_is_nothing_to_say() -> None:
    command = read(DISTRIBUTED_LEDGER="x")
    assert (command.summary, command.warnings(scrapyds=True)) == ("", [])


def test_what_is_said_is_one_line_that_a_terminal_can_show() -> None:
    command = arguments(**{"a\nb": "x", "c\x1b[2J": "x", **{f"name{n}": "x" for n in range(500)}})
    assert command.summary.isprintable()
    assert len(command.summary) < 1100
