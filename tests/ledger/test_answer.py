"""What comes of a wish, as a text and back."""

from __future__ import annotations

import json

import pytest

from scrapy_distributed.ledger.answer import Answer


@pytest.mark.parametrize(
    "answer",
    [
        Answer(lines=("it goes on",)),
        Answer(lines=("it is closing",), done=False),
        Answer(lines=("1 request", "2 left out"), numbers={"again": 1, "left_out": 2}),
        Answer(lines=('{"lines": ["x"]}',)),
    ],
)
def test_it_is_read_as_it_was_written(answer: Answer) -> None:
    read = Answer.from_text(answer.as_text())
    assert (read.words, read.done, read.numbers) == (answer.words, answer.done, answer.numbers)


def test_what_words_alone_say_is_words_alone() -> None:
    assert Answer(lines=("it goes on",)).as_text() == "it goes on"
    assert Answer(lines=("a", "b")).words == "a; b"


@pytest.mark.parametrize(
    "text",
    ["", "paused", "7", "[]", "{}", "[" * 99_999, '{"lines": []}', '{"lines": "x"}', '{"lines": [7]}',
     '{"lines": ["x"], "done": "no"}', '{"lines": ["x"], "numbers": {"again": "x"}}',
     '{"lines": ["x"], "numbers": 7}', json.dumps({"lines": ["x"], "more": 1})],
)  # fmt: skip
def test_all_else_is_words(text: str) -> None:
    assert Answer.from_text(text) == Answer(lines=(text,))
