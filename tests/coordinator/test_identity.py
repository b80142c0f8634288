"""Which crawls are the same run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.identity import identity_of


def identity(**changed: Any) -> str:
    given = {"spider": "s", "project": "p", "args": {"a": "1", "b": "2"}, "rules": (2, 1), "callbacks": ("f", "e"),
             "items": "home", **changed}  # fmt: skip
    return json.dumps(identity_of(**given))


def test_the_order_is_of_no_matter() -> None:
    assert identity(args={"b": "2", "a": "1"}, rules=[1, 2], callbacks=["e", "f"]) == identity()


@pytest.mark.parametrize(
    "other",
    [
        {"spider": "t"}, {"project": "q"}, {"rules": (1,)}, {"callbacks": ()}, {"items": "none"},
        {"args": {"a": "1"}}, {"args": {"a": "1", "b": "3"}}, {"args": {"a": "1", "b": "2", "c": ""}},
    ],
)  # fmt: skip
def test_any_difference_makes_another_run(other: dict[str, Any]) -> None:
    assert identity(**other) != identity()


def test_the_values_of_arguments_are_not_in_it() -> None:
    assert "s3same" not in identity(args={"a": "s3same"})


def test_a_run_goes_on_with_a_token_that_has_been_renewed() -> None:
    config = Config.from_settings(Settings())
    args = [CommandLine.read(Settings(), config, {"category": "tea", "token": token}).args for token in ("x", "y")]
    assert identity(args=args[0]) == identity(args=args[1]) != identity(args={"category": "coffee"})
