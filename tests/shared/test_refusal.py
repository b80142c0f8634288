"""What a worker does not take from the queue."""

from __future__ import annotations

import json

import pytest
from scrapy.settings import Settings

from scrapy_distributed.fast import preset
from scrapy_distributed.shared.refusal import refusal


class Own:
    """A component of the project, named by itself."""


OWN = Settings({
    "ITEM_PIPELINES": {Own: 1, "shop.pipelines.Clean": 2, "scrapy.Item": 3}, "ADDONS": {"shop.addons.Own": 7},
    "FILES_STORE": "/srv/files", "DUPEFILTER_CLASS": "shop.Filter", "SPIDER_MODULES": ["shop.spiders", "shop.more"],
})  # fmt: skip
OWN_NAME = f"{__name__}.Own"


def refused(name: str, value: str, **of_workers: str) -> str:
    return refusal({name: value}, OWN, of_workers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DUPEFILTER_CLASS", "os.path.Own"), ("STATS_CLASS", "shop.Stats"), ("LOG_FILE", "/tmp/x"), ("JOBDIR", "jobs"),
        ("FILES_STORE", "/etc"), ("IMAGES_STORE", "s3://mine/"), ("SPIDER_MODULES", "other"), ("EDITOR", "sh"),
        ("ADDONS", '{"shop.addons.Other": 1}'), ("ADDONS", "no JSON"), ("ADDONS", "[]"),
        ("ITEM_PIPELINES", '{"shop.pipelines.Clean": 2, "os.system": 1}'), ("EXTENSIONS", '{"shop.Extension": 1}'),
        ("FEED_URI", "file:///etc/passwd"), ("FEED_URI", "items.jl"), ("FEED_URI", "ftp2://x/y"),
        ("FEEDS", '{"ftp://h/%(batch)s.jl": {"item_filter": "shop.Filter"}}'), ("FEEDS", '{"/tmp/x.jl": {}}'),
        ("FEEDS", '{"s3://b/x.jl": []}'), ("TELNETCONSOLE_HOST", "0.0.0.0"), ("TELNETCONSOLE_PASSWORD", "x"),
        ("RETRY_EXCEPTIONS", "os.error"), ("HTTPCACHE_DIR", "/"), ("FEED_TEMPDIR", "/tmp"),
        ("PLAYWRIGHT_LAUNCH_OPTIONS", '{"executablePath": "sh"}'), ("SHOP_BACKEND_CLASS", "x"),
        ("SHOP_BACKEND", "json.JSONEncoder"), ("SHOP_BACKENDS", "a, json.JSONEncoder"),
        ("SHOP_OPTIONS", '{"a": [{"b": "json.decoder.JSONDecoder"}]}'), ("SHOP_LIST", "/etc/passwd"),
        ("SHOP_LIST", "file:///x"), ("SHOP_LIST", "~/x"), ("SHOP_LIST", "../x"), ("SHOP_LIST", "/"),
    ],
)  # fmt: skip
def test_settings_that_name_code_or_files_of_the_machine_are_refused_by_name(name: str, value: str) -> None:
    words = refused(name, value)
    shown = "(hidden)" if name == "TELNETCONSOLE_PASSWORD" else repr(value)
    assert words.startswith(f"setting {name}: found {shown}, which names code or files of this machine")
    assert words.endswith("Put it into the settings of the project, or into its DISTRIBUTED_WORKER_SETTINGS, on this"
                          " machine as well")  # fmt: skip
    assert refused(name, value, **{name: value}) == "", "the project here says so itself"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOWNLOAD_DELAY", "2"), ("CONCURRENT_REQUESTS", "64"), ("USER_AGENT", "shop.bot/1.0 (/srv)"),
        ("LOG_LEVEL", "INFO"), ("DEFAULT_REQUEST_HEADERS", '{"Accept": "text/html"}'), ("JOBDIR", ""), ("FEEDS", "{}"),
        ("FEED_URI", ""), ("FEED_URI", "ftp://u@h/%(batch)s.jl"), ("FEEDS", '{"s3://b/%(batch)s.csv": {"fields": []}}'),
        ("DISTRIBUTED_TARGET_RULE", "1"), ("DISTRIBUTED_NODES", "a:1"), ("ASYNCIO_EVENT_LOOP", preset.EVENT_LOOP),
        ("ADDONS", json.dumps({"scrapy_distributed.Addon": 500, "shop.addons.Own": 7, preset.ADDON: preset.LAST})),
        ("ITEM_PIPELINES", json.dumps({OWN_NAME: 1})), ("ITEM_PIPELINES", '{"scrapy.item.Item": 3}'),
        ("FILES_STORE", "/srv/files"),
        ("DUPEFILTER_CLASS", "shop.Filter"), ("SPIDER_MODULES", "shop.spiders,shop.more"),
        ("SHOP_PAGES", "7"), ("SHOP_HOST", "api.no-such-module.com"), ("SHOP_HOST", "nosuchmodule.com"),
        ("SHOP_START", "/no-such-folder/list"), ("SHOP_PAGE", "https://shop.example/list?a=b"), ("SHOP", "[" * 100_000),
    ],
)  # fmt: skip
def test_others_and_what_the_project_says_here_as_well_are_not(name: str, value: str) -> None:
    assert refused(name, value) == ""


def test_what_the_project_says_here_is_told() -> None:
    assert "and the project here has '/srv/files'; expected the same" in refused("FILES_STORE", "/etc")
    assert "and the project here does not have it" in refused("SHOP_FILE", "/etc")
    assert "and the project here has 'x'" in refused("SHOP_FILE", "/etc", SHOP_FILE="x")


@pytest.mark.parametrize(
    ("name", "value", "here"),
    [
        ("FEED_URI", "sftp://u:theirs@h/x", "sftp://u:ours@h/x"),
        ("FEEDS", '{"sftp://u:theirs@h/x": {"format": "jl"}}', '{"sftp://u:ours@h/x": {"format": "jl"}}'),
        ("SHOP_API_KEY", "/etc/theirs", "ours"), ("shop_dir_password", "theirs", "ours"),
    ],
)  # fmt: skip
def test_secrets_of_neither_are_told(name: str, value: str, here: str) -> None:
    words = refused(name, value, **{name: here})
    assert words.startswith(f"setting {name}: found ")
    assert "theirs" not in words
    assert "ours" not in words
