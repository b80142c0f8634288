"""The template of jobs as a shared run keeps it."""

from __future__ import annotations

import json

import pytest

from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.job_template import JobTemplate

TEMPLATE = JobTemplate(project="p", spider="s", version="v", settings={"A": "1", "FEEDS": "{}"}, args={"site": "x"})


def test_it_is_the_same_again() -> None:
    assert JobTemplate.from_json(TEMPLATE.to_json()) == TEMPLATE


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"A": 1}}, {"settings": [["A", "1"]]}, {"args": None}, {"version": 7}, {"spider": "../x"},
        {"project": 7}, {"other": 1}, {"settings": {"FEEDS": "no JSON"}}, {"settings": {"FEEDS": "[]"}},
        {"args": {"_job": "x"}}, {"settings": {"A=B": "1"}},
    ],
)  # fmt: skip
def test_a_forged_one_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(WireError, match="the template of jobs can't be read"):
        JobTemplate.from_json(json.dumps(json.loads(TEMPLATE.to_json()) | change))


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", "[" * 100_000])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="the template of jobs can't be read"):
        JobTemplate.from_json(text)
