"""Every setting: its default, what it takes, and that a refusal names setting, value and rule, but no credential."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config import SETTINGS, Config, warn_lease, warn_unknown
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


def test_defaults_keep_their_own_rules() -> None:
    config = Config.from_settings(Settings())
    for setting in SETTINGS:
        assert getattr(config, setting.field) == setting.default
        if setting.default not in (None, ()):
            assert setting.read(setting.default) == setting.default


def test_none_is_the_default() -> None:
    assert read("BATCH_SIZE", None) == 1000


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
        ("s3://user:s3/cret@h/items.jl", "'s3://h/items.jl'"),
        ("items.jl", "'items.jl'"),
        (7, "7"),
    ],
)
def test_a_refused_feed_url_is_shown_without_its_password(value: Any, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("TARGET_FEED_URL", value)
    assert str(caught.value).startswith(f"DISTRIBUTED_TARGET_FEED_URL: found {found}, expected a feed URL with %(batch")


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
