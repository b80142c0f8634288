"""What ``DUPEFILTER_CLASS`` says of duplicates, as far as it holds for a run: no object of it sees all requests."""

from __future__ import annotations

import logging

from scrapy.dupefilters import BaseDupeFilter, RFPDupeFilter
from scrapy.settings import BaseSettings
from scrapy.utils.misc import load_object

logger = logging.getLogger(__name__)


def are_filtered(settings: BaseSettings) -> bool:
    """Whether a request can be a duplicate. With Scrapy's ``BaseDupeFilter`` none is, as if all had ``dont_filter``."""
    return load_object(settings["DUPEFILTER_CLASS"]) is not BaseDupeFilter


def warn_of_others(settings: BaseSettings) -> None:
    """Log a filter of the project's own: nobody knows what it would say of requests that other processes have seen."""
    kind = load_object(settings["DUPEFILTER_CLASS"])
    if kind not in (BaseDupeFilter, RFPDupeFilter):
        logger.warning(
            "DUPEFILTER_CLASS: found %s.%s, which sees the requests of one process alone: those that the coordinator"
            " crawls itself, and those of each job. Of requests for the fleet the fingerprints say which are duplicates"
            " (REQUEST_FINGERPRINTER_CLASS). Expected scrapy.dupefilters.RFPDupeFilter with a fingerprinter that tells"
            " the same requests apart, or BaseDupeFilter, with which nothing is a duplicate",
            kind.__module__, kind.__qualname__,
        )  # fmt: skip
