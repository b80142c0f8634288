"""Fast workers: what the preset changes, what it leaves, and that a crawl comes to the same with it."""

from __future__ import annotations

import gc
import json
import logging
from typing import Any

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares import redirect
from scrapy.http import HtmlResponse
from scrapy.settings import Settings
from scrapy.utils.misc import load_object
from scrapy.utils.test import get_crawler

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.dispatch.job_template import job_template
from scrapy_distributed.fast import meta_refresh
from scrapy_distributed.fast import preset as fast
from scrapy_distributed.wire.job_template import JobTemplate

HANDLERS = {"http": fast.HANDLER, "https": fast.HANDLER}


class Quick:
    """Item pipeline."""

    def process_item(self, item: Any) -> Any:
        return item


class Waiting:
    """Item pipeline."""

    async def process_item(self, item: Any) -> Any:
        return item


def updated(caplog: pytest.LogCaptureFixture, settings: Settings) -> str:
    """What the add-on says of *settings*, which it changes."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fast.FastWorker().update_settings(settings)
    return caplog.text


def test_it_changes_what_nobody_has_set(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings({"ITEM_PIPELINES": {Quick: 1}})
    said = updated(caplog, settings)
    assert "changed: items of a page one by one; lean download handler" in said
    assert settings["CONCURRENT_ITEMS"] == 1
    assert settings.getdict("DOWNLOAD_HANDLERS") == HANDLERS
    assert fast.REMOTE_CONTROL not in settings.getdict("EXTENSIONS_BASE")
    assert "scrapy.extensions.feedexport.FeedExporter" in settings.getdict("EXTENSIONS_BASE")


def test_what_somebody_has_set_stays(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(
        {
            "CONCURRENT_ITEMS": 7, "DOWNLOAD_HANDLERS": {"http": "a.B", "https": None}, "REMOTE_CONTROL_ENABLED": True,
            "STATS_CLASS": "a.Stats", "REQUEST_FINGERPRINTER_CLASS": "a.Fingerprinter",
            "DOWNLOADER_MIDDLEWARES": {fast.META_REFRESH: 580},
        }
    )  # fmt: skip
    before = settings.copy_to_dict()
    said = updated(caplog, settings)
    assert settings.copy_to_dict() == before
    assert "changed: nothing" in said
    assert "items of a page one by one (CONCURRENT_ITEMS is set)" in said
    assert "lean download handler (DOWNLOAD_HANDLERS has http and https)" in said


def test_handlers_of_other_schemes_stay(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings()
    settings.set("DOWNLOAD_HANDLERS", '{"ftp": null, "https": "a.B"}', priority="cmdline")
    updated(caplog, settings)
    assert settings.getdict("DOWNLOAD_HANDLERS") == {"ftp": None, "https": "a.B", "http": fast.HANDLER}


def test_a_project_that_names_the_meta_refresh_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    for named in (fast.META_REFRESH, load_object(fast.META_REFRESH)):
        settings = Settings({"DOWNLOADER_MIDDLEWARES": {named: None}})
        assert "a quicker look for meta refresh (DOWNLOADER_MIDDLEWARES names it)" in updated(caplog, settings)
        assert fast.META_REFRESH in settings.getdict("DOWNLOADER_MIDDLEWARES_BASE")


@pytest.mark.parametrize(
    "page",
    [
        b"<p>nothing</p>",
        b"<meta http-equiv='REFRESH' content='0; url=/there'>",
        b"<meta http-equiv='&#114;efresh' content='0; url=/there'>",
        b"<!-- <meta http-equiv='refresh' content='0; url=/there'> -->",
        b" " * 4000 + b"<meta http-equiv='refresh' content='0; url=/there'>",
        b" " * 4090 + b"<meta http-equiv='refresh' content='0; url=/there'>",
        "<meta http-equiv='refresh' content='0; url=/there'>".encode("utf-16"),
        b"",
    ],
)
@pytest.mark.parametrize("meta", [{}, {"dont_redirect": True}])
def test_the_quicker_look_finds_what_scrapy_finds(page: bytes, meta: dict[str, Any]) -> None:
    found = []
    for middleware in (redirect.MetaRefreshMiddleware, meta_refresh.MetaRefreshMiddleware):
        crawler = get_crawler()
        request = Request("http://x.test/here", meta=dict(meta))
        response = HtmlResponse(request.url, body=page, headers={"Content-Type": "text/html"})
        result = middleware.from_crawler(crawler).process_response(request, response)
        found.append(result.url if isinstance(result, Request) else result is response)
    assert found[0] == found[1]


def test_records_that_nobody_keeps_are_not_made(caplog: pytest.LogCaptureFixture) -> None:
    keeps = logging.Handler(logging.INFO)
    own = [handler for handler in logging.root.handlers if handler is not keeps]
    logger = logging.getLogger("some.spider")
    logger.setLevel(logging.DEBUG)
    try:
        logging.root.handlers[:] = [keeps]
        fast._spare_the_log()
        assert not logger.isEnabledFor(logging.DEBUG)
        assert logger.isEnabledFor(logging.INFO)
        logging.disable(logging.NOTSET)
        logger.addHandler(logging.Handler(logging.DEBUG))
        fast._spare_the_log()
        assert logger.isEnabledFor(logging.DEBUG)
        logging.disable(logging.ERROR)
        fast._spare_the_log()
        assert not logger.isEnabledFor(logging.ERROR)  # as the project has it
    finally:
        logging.disable(logging.NOTSET)
        logging.root.handlers[:] = own
        logger.handlers.clear()


@pytest.mark.parametrize(
    "given", [{"TWISTED_REACTOR_ENABLED": "False"}, {"TWISTED_REACTOR": "twisted.internet.epollreactor.EPollReactor"}]
)
def test_without_the_asyncio_reactor_downloads_stay(given: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(given)
    assert f"lean download handler ({next(iter(given))} is" in updated(caplog, settings)
    assert settings.getdict("DOWNLOAD_HANDLERS") == {}


@pytest.mark.parametrize("pipeline", [Waiting, f"{__name__}.Waiting", "scrapy.pipelines.files.FilesPipeline"])
def test_items_stay_side_by_side_where_a_pipeline_may_wait(pipeline: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings({"ITEM_PIPELINES": {Quick: 1, pipeline: 2}})
    said = updated(caplog, settings)
    assert "items of a page one by one (the item pipeline" in said
    assert settings["CONCURRENT_ITEMS"] == 100


def test_the_collector_leaves_what_is_there() -> None:
    before = gc.get_threshold()
    try:
        fast._spare_the_collector()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == fast.COLLECT_AFTER
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"ASYNCIO_EVENT_LOOP": fast.EVENT_LOOP}),
        ({"ASYNCIO_EVENT_LOOP": "asyncio.SelectorEventLoop"}, {}),
        ({"TWISTED_REACTOR": "twisted.internet.epollreactor.EPollReactor"}, {}),
    ],
)
def test_the_loop_travels_with_the_job(given: dict[str, str], sent: dict[str, str]) -> None:
    assert fast.job_settings(Settings(given)) == sent


def job(**given: Any) -> JobTemplate:
    settings = Settings({f"DISTRIBUTED_{name.upper()}": value for name, value in given.items()})
    config = Config.from_settings(settings)
    return job_template(
        config, spider="s", command=CommandLine.read(settings, config, {}), settings=settings, project="p", rules=(),
        version="", items_go=ItemsGo.HOME,
    )  # fmt: skip


def test_one_line_switches_it_off() -> None:
    settings = job().settings
    assert json.loads(settings["ADDONS"]) == {"scrapy_distributed.Addon": 500, fast.ADDON: fast.LAST}
    assert settings["ASYNCIO_EVENT_LOOP"] == fast.EVENT_LOOP
    settings = job(fast_workers=False).settings
    assert json.loads(settings["ADDONS"]) == {"scrapy_distributed.Addon": 500}
    assert "ASYNCIO_EVENT_LOOP" not in settings


def test_the_settings_for_workers_win() -> None:
    settings = job(worker_settings={"ASYNCIO_EVENT_LOOP": "a.Loop", "CONCURRENT_ITEMS": 5}).settings
    assert (settings["ASYNCIO_EVENT_LOOP"], settings["CONCURRENT_ITEMS"]) == ("a.Loop", "5")
