"""What ``scrapy fleet`` says of what nodes answer: a node that lies does not flood the terminal."""

from __future__ import annotations

from scrapy_distributed.commands.deploy import _unusable


def test_of_many_spiders_that_no_node_can_run_the_first_are_named() -> None:
    said = _unusable(f"a/{number}" for number in range(150_000))
    assert len(said) == 11
    assert said[0].startswith("spider 'a/0': found what is a path")
    assert said[-1] == "and 149,990 spiders more like these"


def test_each_of_a_few_is_named_once() -> None:
    said = _unusable(["good", "b/c", "a/b", "a/b"])
    assert [sentence.partition(":")[0] for sentence in said] == ["spider 'a/b'", "spider 'b/c'"]
    assert _unusable(["good"]) == []
