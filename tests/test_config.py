"""Every setting: its default, what it takes, and that a refusal names setting, value and rule, but no credential."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.advice import check_feeds, warn_lease, warn_passwords, warn_unknown, warn_wait
from scrapy_distributed.config.config import SETTINGS, Config
from scrapy_distributed.errors import ConfigError


def read(name: str, value: Any) -> Any:
    config = Config.from_settings(Settings({f"DISTRIBUTED_{name}": value}))
    return getattr(config, name.lower())


def test_every_field_is_one_setting_with_a_word_on_it() -> None:
    assert [setting.field for setting in SETTINGS] == [field.name for field in fields(Config)]
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    for setting in SETTINGS:
        assert setting.name == f"DISTRIBUTED_{setting.field.upper()}"
        assert setting.doc.endswith(".")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, 0),
        ({"WAIT": False}, 1),
        ({"WAIT": False, "WORKER_TARGETS": "follow"}, 0),
        ({"WORKER_TARGETS": "follow"}, 0),
    ],
)
def test_that_workers_follow_what_they_find_is_told(
    settings: dict[str, Any], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    warn_wait(Config.from_settings(Settings({f"DISTRIBUTED_{name}": value for name, value in settings.items()})))
    assert caplog.text.count("each job follows the requests for the fleet that it finds itself") == told


def test_defaults_keep_their_own_rules() -> None:
    config = Config.from_settings(Settings())
    for setting in SETTINGS:
        assert getattr(config, setting.field) == setting.default
        if setting.default not in (None, ()):
            assert setting.read(setting.default) == setting.default


def test_none_is_the_default() -> None:
    assert read("BATCH_SIZE", None) == "auto"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ENABLED", "False", False), ("ENABLED", "0", False), ("ENABLED", 0, False), ("ENABLED", "true", True),
        ("RESUME", "1", True), ("WAIT", False, False), ("WAIT", "", False),
        ("TARGET_RULE", 1, (1,)), ("TARGET_RULE", 0, (0,)), ("TARGET_RULE", "1", (1,)), ("TARGET_RULE", "1, 2", (1, 2)),
        ("TARGET_RULE", [1, "2"], (1, 2)), ("TARGET_RULE", (), ()), ("TARGET_RULE", "", ()),
        ("TARGET_CALLBACKS", "a, b", ("a", "b")), ("TARGET_CALLBACKS", ["a"], ("a",)),
        ("TARGET_HOSTS", "h1:6800,h2:6800,", ("h1:6800", "h2:6800")), ("TARGET_HOSTS", ("h1",), ("h1",)),
        ("TARGET_FEED_URL", "ftp://h/%(batch)s.jl", "ftp://h/%(batch)s.jl"), ("TARGET_FEED_URL", "", ""),
        ("BATCH_SIZE", "250", 250), ("BATCH_SIZE", 250, 250), ("BATCH_SIZE", 250.0, 250),
        ("BATCH_SIZE", "auto", "auto"),
        ("BATCH_MAX_AGE", "1.5", 1.5), ("BATCH_MAX_AGE", 0, 0.0),
        ("WORKER_SETTINGS", {"A": 1, "B": "x", "C": True, "D": [1]}, {"A": "1", "B": "x", "C": "true", "D": "[1]"}),
        ("WORKER_SETTINGS", '{"A": 1}', {"A": "1"}), ("WORKER_SETTINGS", "", {}),
        ("PROJECT", "p", "p"), ("VERSION", "r10", "r10"), ("LEDGER", "/a/b", "/a/b"),
        ("START_URL", "[]", "[]"), ("START_URL", [], []),
    ],
)  # fmt: skip
def test_python_values_and_strings_of_the_command_line_mean_the_same(name: str, value: Any, expected: Any) -> None:
    found = read(name, value)
    assert found == expected
    assert type(found) is type(expected)


WHOLE = "a whole number of at least 1"
INDEX = 'the index of a rule, or several of them: 1, [1, 2] or "1,2"'


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("ENABLED", "maybe", "True or False"), ("WAIT", 2, "True or False"), ("RESUME", [], "True or False"),
        ("TARGET_RULE", "one", INDEX), ("TARGET_RULE", -1, INDEX), ("TARGET_RULE", [None], INDEX),
        ("TARGET_RULE", {1}, INDEX), ("TARGET_RULE", "1,x", INDEX), ("TARGET_RULE", True, INDEX),
        ("TARGET_RULE", 1.5, INDEX), ("TARGET_RULE", [1.5], INDEX),
        ("TARGET_CALLBACKS", 1, "a list of strings"), ("TARGET_CALLBACKS", [1], "a list of strings"),
        ("TARGET_CALLBACKS", {"a": 1}, "a list of strings"), ("WORKER_ARGS", b"a", "a list of strings"),
        ("BATCH_SIZE", 0, WHOLE), ("BATCH_SIZE", "-1", WHOLE), ("BATCH_SIZE", "many", WHOLE),
        ("BATCH_SIZE", True, WHOLE), ("BATCH_SIZE", "Auto", "a whole number of at least 1, or 'auto'"),
        ("BATCH_SIZE", 2.5, WHOLE), ("BATCH_SIZE", "2.5", WHOLE), ("BATCH_SIZE", float("nan"), WHOLE),
        ("BATCH_SIZE", float("inf"), WHOLE), ("BATCH_SIZE", [1], WHOLE), ("MAX_ATTEMPTS", 0, WHOLE),
        ("LEASE", 0, "a number of at least 1"), ("LEASE", "nan", "a number of at least 1"),
        ("LEASE", "inf", "a number of at least 1"), ("LEASE", "soon", "a number of at least 1"),
        ("TIMEOUT", 0, "a number of at least 0.1"), ("POLL_INTERVAL", 0, "a number of at least 0.05"),
        ("NODE_BACKLOG", -1, "a whole number of at least 0"), ("LEDGER", 1, "a string"), ("PROJECT", ["p"], "a string"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_setting_the_value_and_the_rule(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(name, value)
    assert isinstance(caught.value, ValueError)  # so that Scrapy does not start the crawl
    assert str(caught.value).startswith(f"DISTRIBUTED_{name}: found {value!r}, expected {rule}")


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("TARGET_HOSTS", {"http://user:s3cret@h": 1}, "a list of strings"),
        ("TARGET_HOSTS", [b"http://user:s3cret@h"], "a list of strings"),
        (
            "TARGET_FEEDS",
            "ftp://user:s3cret@h/%(batch)s.jl",
            "a dict of feed URLs and their options, as Scrapy's FEEDS",
        ),
        ("TARGET_FEEDS", ["ftp://user:s3cret@h/%(batch)s.jl"], "a dict of feed URLs and their options"),
        ("TARGET_FEEDS", {"ftp://user:s3cret@h/%(batch)s.jl": "jl"}, "a dict of feed URLs and their options"),
        ("TARGET_FEEDS", {b"ftp://user:s3cret@h/%(batch)s.jl": {}}, "a dict of feed URLs and their options"),
        ("TARGET_FEEDS", {"s3://key:1/s3cret@h/%(batch)s.jl": {}}, "a feed URL whose password, if it has one, can"),
        ("TARGET_FEEDS", {"ftp://u:s3cret/y@h/%(batch)s.jl": {}}, "a feed URL whose password, if it has one, can"),
        ("TARGET_FEEDS", {"ftp:/u:s3cret@h/1.jl": {}}, "a feed URL whose password, if it has one, can"),
        ("TARGET_FEED_URL", "ftp://u:12/s3cret@h/%(batch)s.jl", "a feed URL whose password, if it has one, can"),
        ("TARGET_FEED_URL", "ftp://u:s3cret#@h/%(batch)s.jl", "a feed URL whose password, if it has one, can"),
        ("TARGET_FEED_URL", "ftp//user:s3cret@h/items.jl", "a feed URL with %(batch)s in it"),
        ("TARGET_FEED_URL", "s3://key:1/s3cret@h/items.jl", "a feed URL with %(batch)s in it"),
        ("WORKER_SETTINGS", "FTP_PASSWORD=s3cret", "a dict of setting names and values, or one as JSON"),
        ("WORKER_SETTINGS", ["s3cret"], "a dict of setting names and values, or one as JSON"),
        ("WORKER_SETTINGS", {1: "s3cret"}, "a dict of setting names and values, or one as JSON"),
        ("WORKER_SETTINGS", '["s3cret"]', "a dict of setting names and values, or one as JSON"),
        ("WORKER_SETTINGS", {"A": {"s3cret"}}, "a dict of setting names and values, or one as JSON"),
        ("WORKER_SETTINGS", {"A": {Config: 1}}, "a dict of setting names and values, or one as JSON"),
    ],
)
def test_a_refusal_shows_no_value_that_may_hold_a_password(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(name, value)
    assert str(caught.value).startswith(f"DISTRIBUTED_{name}: found a value, expected {rule}")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("ftp://user:s3cret@h/items.jl", "'ftp://user@h/items.jl'"),
        ("s3://user:s3/cret@h/items.jl", "a value"),
        ("items.jl", "'items.jl'"),
        (7, "7"),
    ],
)
def test_a_refused_feed_url_is_shown_without_its_password(value: Any, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("TARGET_FEED_URL", value)
    assert str(caught.value).startswith(f"DISTRIBUTED_TARGET_FEED_URL: found {found}, expected a feed URL with %(batch")


# Feeds


class Filter:
    """An item filter, by its class."""


def params(given: dict[str, Any], spider: Any) -> dict[str, Any]:
    return given


URL = "ftp://user:s3cret@h/%(batch)s_%(time)s.csv"


@pytest.mark.parametrize(
    ("feeds", "expected"),
    [
        ({}, {}),
        ("", {}),
        ({URL: {}}, {URL: {"format": "csv"}}),
        ({URL: {"format": "jl"}}, {URL: {"format": "jl"}}),
        (f'{{"{URL}": {{"fields": {{"a": "A"}}, "overwrite": true}}}}',
         {URL: {"format": "csv", "fields": {"a": "A"}, "overwrite": True}}),
        ({Path("/items/%(batch)s.jl"): {"encoding": "latin-1", "indent": 4, "store_empty": False}},
         {"/items/%(batch)s.jl": {"format": "jl", "encoding": "latin-1", "indent": 4, "store_empty": False}}),
        ({Path("%(batch)s.jl"): {}}, {str(Path("%(batch)s.jl").absolute()): {"format": "jl"}}),
        ({URL: {"item_filter": Filter, "item_classes": (Filter, "a.B"), "uri_params": params}},
         {URL: {"format": "csv", "item_filter": "test_config.Filter", "item_classes": ["test_config.Filter", "a.B"],
                "uri_params": "test_config.params"}}),
        ({URL: {"postprocessing": [Path], "item_export_kwargs": {"delimiter": ";"}}},
         {URL: {"format": "csv", "postprocessing": ["pathlib.Path"], "item_export_kwargs": {"delimiter": ";"}}}),
        ({"%(batch)s-%(batch_id)03d.jl": {"batch_item_count": 10}},
         {"%(batch)s-%(batch_id)03d.jl": {"format": "jl", "batch_item_count": 10}}),
        ({"%(batch)s-%(batch_time)s.jl": {"batch_item_count": 10}},
         {"%(batch)s-%(batch_time)s.jl": {"format": "jl", "batch_item_count": 10}}),
        ({"%(batch)s.jl.gz": {"format": "jl"}}, {"%(batch)s.jl.gz": {"format": "jl"}}),
        ({"ftp://u:a%%2Fb%%40c@h:21/%(batch)s.xyz": {"format": "xyz"}},
         {"ftp://u:a%%2Fb%%40c@h:21/%(batch)s.xyz": {"format": "xyz"}}),
        ({"%%%(batch)s.jl": {"batch_item_count": 0}}, {"%%%(batch)s.jl": {"format": "jl", "batch_item_count": 0}}),
    ],
)  # fmt: skip
def test_feeds_are_read_as_json_knows_them(feeds: Any, expected: dict[str, Any]) -> None:
    assert read("TARGET_FEEDS", feeds) == expected


class Outer:
    class Inner:
        """Can't be imported by one name."""


@pytest.mark.parametrize(
    "feeds",
    [
        {"%(batch)s.jl": {"item_filter": lambda item: True}}, {"%(batch)s.jl": {"item_filter": Outer.Inner}},
        {"%(batch)s.jl": {"item_filter": Filter()}}, {"%(batch)s.jl": {"postprocessing": [partial(params, {})]}},
        {"%(batch)s.jl": {"item_classes": {Filter}}}, {"%(batch)s.jl": {"fields": {("a", "b"): "c"}}},
        {"%(batch)s.jl": {"uri_params": Config.from_settings}},
    ],
)  # fmt: skip
def test_options_that_can_not_travel_are_named(feeds: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read("TARGET_FEEDS", feeds)
    ((name, _),) = feeds["%(batch)s.jl"].items()
    assert str(caught.value) == (
        "DISTRIBUTED_TARGET_FEEDS: found a value, expected options that JSON knows, or classes and functions that can"
        f" be imported by their name; '%(batch)s.jl' has another {name!r}"
    )


@pytest.mark.parametrize(
    ("url", "options", "rule"),
    [
        ("ftp://user:s3cret@h/1.jl", {}, "else the workers overwrite each other's items; 'ftp://user@h/1.jl' has none"),
        ("%%(batch)s.jl", {}, "%(batch)s in each feed URL, else"),
        ("%(batch)s_%(name)s", {}, "; '%(batch)s_%(name)s' has none"),
        ("ftp://user:s3cret@h/%(batch)s.jl.gz", {}, "a format for each feed, or a URL that ends with one of json, "),
        ("ftp://user:s3cret@h/%(batch)s.jl.gz", {}, "; 'ftp://user@h/%(batch)s.jl.gz' has none"),
        ("%(batch)s.%(end)s", {}, "a format for each feed"),
        ("%(batch)s.jl", {"format": None}, "a format for each feed"),
        ("ftp://user:s3cret@h/%(batch)s.jl", {"batch_item_count": 5},
         "%(batch_id)d or %(batch_time)s in a feed URL with batch_item_count; 'ftp://user@h/%(batch)s.jl' has none"),
    ],
)  # fmt: skip
def test_a_feed_that_no_worker_could_write_is_named_without_its_password(url: str, options: Any, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("TARGET_FEEDS", {"%(batch)s.csv": {}, url: options})
    assert rule in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_format_of_the_projects_own_has_to_be_named() -> None:
    settings = {"DISTRIBUTED_TARGET_FEEDS": {"%(batch)s.xyz": {}}, "FEED_EXPORTERS": {"xyz": "a.B"}}
    with pytest.raises(ConfigError, match=r"ends with one of json, jsonlines, .*; '%\(batch\)s.xyz' has none"):
        Config.from_settings(Settings(settings))
    assert read("TARGET_FEEDS", {"%(batch)s.xyz": {"format": "xyz"}}) == {"%(batch)s.xyz": {"format": "xyz"}}


def test_a_batch_that_is_written_as_text_is_none() -> None:
    with pytest.raises(ConfigError, match="expected a feed URL with"):
        read("TARGET_FEED_URL", "%%(batch)s.jl")
    assert read("TARGET_FEED_URL", "100%%_%(batch)s.jl") == "100%%_%(batch)s.jl"


def with_feeds(url: str, feeds: dict[str, Any]) -> Config:
    return Config.from_settings(Settings({"DISTRIBUTED_TARGET_FEED_URL": url, "DISTRIBUTED_TARGET_FEEDS": feeds}))


def test_one_way_to_name_feeds() -> None:
    one, other = with_feeds(URL, {}), with_feeds("", {URL: {}, "%(batch)s.jl": {}})
    for config, urls in ((one, (URL,)), (other, (URL, "%(batch)s.jl")), (with_feeds("", {}), ())):
        check_feeds(config)
        assert config.feed_urls == urls
    with pytest.raises(ConfigError) as caught:
        check_feeds(with_feeds(URL, {URL: {}}))
    assert str(caught.value).startswith(
        "DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS: found both, expected one of them; to have format,"
    )
    assert "keep DISTRIBUTED_TARGET_FEEDS and remove DISTRIBUTED_TARGET_FEED_URL" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_passwords_of_feeds_are_warned_of_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    warn_passwords(with_feeds("ftp://user:%(word)s@h/%(batch)s.jl", {}))
    warn_passwords(with_feeds("ftp://user@h/%(batch)s.jl", {}))
    assert caplog.messages == []
    warn_passwords(with_feeds(URL, {}))
    warn_passwords(with_feeds("", {"%(batch)s.jl": {}, URL: {}}))
    assert [text.partition(", and ps,")[0] for text in caplog.messages] == [
        "DISTRIBUTED_TARGET_FEED_URL: found a password in 'ftp://user@h/%(batch)s_%(time)s.csv'",
        "DISTRIBUTED_TARGET_FEEDS: found a password in 'ftp://user@h/%(batch)s_%(time)s.csv'",
    ]
    assert all("a placeholder that FEED_URI_PARAMS fills in" in text for text in caplog.messages)


# Slips of the pen


def test_a_misspelt_setting_is_named_with_the_one_that_is_meant(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings({"DISTRIBUTED_BACH_SIZE": 3, "DISTRIBUTED_BATCH_SIZE": 3, "DISTRIBUTED_QQQ": 1, "BACH_SIZE": 1})
    warn_unknown(settings)
    assert caplog.messages == [
        "DISTRIBUTED_BACH_SIZE is no setting of scrapy_distributed, DISTRIBUTED_BATCH_SIZE is",
        "DISTRIBUTED_QQQ is no setting of scrapy_distributed",
    ]


@pytest.mark.parametrize(
    ("lease", "poll", "receipt", "warned"), [(60, 2, 2, False), (5.9, 2, 1, True), (6, 1, 2, False), (8, 1, 3, True)]
)
def test_a_lease_of_a_few_intervals_is_warned_of(
    caplog: pytest.LogCaptureFixture, lease: float, poll: float, receipt: float, warned: bool
) -> None:
    intervals = {"DISTRIBUTED_POLL_INTERVAL": poll, "DISTRIBUTED_RECEIPT_INTERVAL": receipt}
    warn_lease(Config.from_settings(Settings({"DISTRIBUTED_LEASE": lease, **intervals})))
    assert [f"DISTRIBUTED_LEASE: found {lease:g} s, expected at least " in text for text in caplog.messages] == (
        [True] if warned else []
    )


def test_custom_settings_of_a_spider_count() -> None:
    settings = Settings({"DISTRIBUTED_BATCH_SIZE": 7})
    settings.set("DISTRIBUTED_BATCH_SIZE", "8", priority="spider")
    assert Config.from_settings(settings).batch_size == 8
    settings.set("DISTRIBUTED_BATCH_SIZE", "9", priority="cmdline")
    assert Config.from_settings(settings).batch_size == 9
