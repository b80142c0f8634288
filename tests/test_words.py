"""Text for people."""

from __future__ import annotations

import pytest

from scrapy_distributed.words import LONGEST_QUOTE, counted, escaped, last_line, listed, shortened


def test_what_is_long_is_cut_and_what_a_terminal_would_carry_out_is_not_shown() -> None:
    assert shortened("a" * LONGEST_QUOTE) == "a" * LONGEST_QUOTE
    assert shortened("a" * (LONGEST_QUOTE + 1)) == "a" * (LONGEST_QUOTE - 3) + "..."
    assert shortened("a\x1b[2J\u202e\u00fc\n", 100) == "a?[2J?\u00fc?"


def test_what_is_escaped_is_whole() -> None:
    assert escaped("a\x1b\n\u00fc" + "b" * 1000) == "a\\x1b\\n\u00fc" + "b" * 1000


@pytest.mark.parametrize(("text", "expected"), [("one\n two \n\n", "two"), ("\n \n", "an empty message")])
def test_the_last_line_with_something_in_it(text: str, expected: str) -> None:
    assert last_line(text) == expected


def test_names_are_in_order_and_none_is_said() -> None:
    assert (listed(["b", "a"]), listed([])) == ("a, b", "none")


def test_one_is_no_plural() -> None:
    assert [counted(number, "item") for number in (0, 1, 1000)] == ["0 items", "1 item", "1,000 items"]
