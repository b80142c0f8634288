"""What the dupe filter of a project says of a run."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scrapy.dupefilters import BaseDupeFilter, RFPDupeFilter
from scrapy.settings import Settings

from scrapy_distributed.divert.duplicates import are_filtered, warn_of_others


class Own(RFPDupeFilter):
    """One of a project."""


@pytest.mark.parametrize(
    ("kind", "filtered", "known"),
    [
        (None, True, True),
        (RFPDupeFilter, True, True),
        ("scrapy.dupefilters.BaseDupeFilter", False, True),
        (BaseDupeFilter, False, True),
        (Own, True, False),
    ],
)
def test_scrapys_two_hold_for_a_run_and_another_is_told(
    kind: Any, filtered: bool, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings({"DUPEFILTER_CLASS": kind} if kind else {})
    assert are_filtered(settings) is filtered
    warn_of_others(settings)
    assert [record.levelno for record in caplog.records] == ([] if known else [logging.WARNING])
    assert known or "DUPEFILTER_CLASS: found test_duplicates.Own, which sees the requests of one process" in caplog.text
