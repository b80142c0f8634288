"""Which words move the price: what counts as an item, a word and a shift, and the command without Spark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, groupby
from pathlib import Path
from statistics import pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shifts import Analysis, Shift, Tables, analyse, as_table
from shifts_command import EXAMPLE, feed, land
from words import Item, Malformed, MalformedError, Sums, read_feed, read_item, shifts_of, words_of


def line(**fields: object) -> bytes:
    """One item as it stands in a feed."""
    return json.dumps(fields).encode()


# What a word is.


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Split Business Split", ("split", "business")),
        ("2 bed flat, sea-view; 60m²!", ("2", "bed", "flat", "sea", "view", "60m²")),
        ("the owner's under_floor", ("the", "owner", "s", "under", "floor")),
        ("ÉTAGE Élevé étage", ("étage", "élevé")),
        ("STRASSE Straße", ("strasse", "straße")),
        ("İstanbul ΟΔΟΣ 東京 ١٢", ("i\u0307stanbul", "οδος", "東京", "١٢")),
        (" ,!_ ", ()),
    ],
)
def test_words(title: str, words: tuple[str, ...]) -> None:
    assert words_of(title) == words


@given(st.text())
def test_a_word_is_a_run_of_letters_and_digits(title: str) -> None:
    runs = ["".join(run) for alphanumeric, run in groupby(title, str.isalnum) if alphanumeric]
    assert set(words_of(title)) == {run.lower() for run in runs}
    assert len(words_of(title)) == len(set(words_of(title)))


# What an item is.


@pytest.mark.parametrize(
    ("price", "units"),
    [
        ("1", 10**12),
        ("1.10", 1_100_000_000_000),
        ("0", 0),
        ("-0.0", 0),
        ("0E+999999", 0),
        ('"12.5e1"', 125 * 10**12),
        ("0.0000000000005", 0),  # half to even
        ("0.0000000000015", 2),
        ("1E-400", 0),
        ("123456789012.123456789012", 123456789012123456789012),
        ("999999999999.9999999999999999", 10**24),
    ],
)
def test_a_price_is_counted_exactly(price: str, units: int) -> None:
    assert read_item(b'{"title": "", "price": %s}' % price.encode()).price == units


@pytest.mark.parametrize(
    "price",
    [
        "null",
        "true",
        "[1]",
        '{"a": 1}',
        "-1",
        "-1e-30",
        "NaN",
        "Infinity",
        "-Infinity",
        "1000000000000",
        "1e999999999999999999999",
        '""',
        '"1,200.00"',
        '"£5"',
        '" 5"',
        '"5\\n"',
        '"1_0"',
        '"\u0665"',  # a digit five, but not JSON's
        '"nan"',
        '".5"',
        '"0x10"',
    ],
)
def test_no_price(price: str) -> None:
    with pytest.raises(MalformedError, match=r"^price .* is not a number from 0 to below 1,000,000,000,000$"):
        read_item(b'{"title": "", "price": %s}' % price.encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"title": "cut of', "not JSON: Unterminated string"),
        (b"\xff\xfe", "not JSON: 'utf-8' codec can't decode"),
        (b"[" * 200_000, "nested deeper than 100 levels"),
        (b'[{"title": "", "price": 1}]', "not a JSON object"),
        (b"7", "not a JSON object"),
        (b'{"price": 1}', "no title that is a string"),
        (b'{"title": 1.5, "price": 1}', "no title that is a string"),
        (b'{"title": ["flat"], "price": 1}', "no title that is a string"),
        (b'{"title": "flat"}', "no price"),
    ],
)
def test_no_item(text: bytes, reason: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_item(text)
    assert str(caught.value).startswith(reason)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """A JSON text that nests so deep."""
    return opening * levels + "1" + closing * levels


def deeper(frames: int, line: bytes) -> list[tuple[int, Item | Malformed]]:
    """What a line says to a caller with so many more frames on its stack, as a worker of Spark has."""
    return deeper(frames - 1, line) if frames else list(read_feed("1.jl", [line]))


@pytest.mark.parametrize("frames", [0, 600])
@pytest.mark.parametrize("levels", [99, 100, 300, 991, 5_000, 50_000])
@pytest.mark.parametrize("text", ["[]", ('{"a":', "}"), ('["\\\\", "\\"", "]", ', "]")])
@pytest.mark.parametrize("field", ["title", "price", "url", "other"])
def test_how_deep_a_line_may_be_nested(field: str, text: Sequence[str], levels: int, frames: int) -> None:
    fields = {"title": '"["', "price": "1", field: nested(levels, *text)}
    line = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    ((_, said),) = deeper(frames, b"{%s}" % line.encode())
    deep = isinstance(said, Malformed) and said.reason == "nested deeper than 100 levels"
    assert deep == (levels > 99)  # the object itself is the first
    assert isinstance(said, Malformed) == (deep or field in {"title", "price"})


def test_brackets_in_a_string_are_no_levels() -> None:
    assert read_item(line(title='[{"' * 200 + " flat", price=1)).words == ("flat",)
    assert read_item(line(title="", price=1, other=[[]] * 200)).words == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["title", "price", "url"]) | st.text(), values),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.data())
def test_whatever_a_line_says_it_is_an_item_or_malformed(text: bytes, data: st.DataObject) -> None:
    for part in (text, text[: data.draw(st.integers(0, len(text)))], b'{"title": "a", "price": %s}' % text):
        for _, said in read_feed("1.jl", [part]):
            assert isinstance(said, Item) or json.loads(said.as_json())["line"] == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_byte_order_marks_are_no_part_of_a_line(encoding: str) -> None:
    """Scrapy puts one on each line, other programs on the first."""
    first, *others = [json.dumps(item) for item in EXAMPLE]
    lines = [f"{first}\n".encode("utf-8-sig"), *(f"{text}\n".encode(encoding) for text in others)]
    said = [said for _, said in read_feed("1.jl", [*lines, "\n".encode(encoding), "".encode(encoding)])]
    assert [item.words for item in said if isinstance(item, Item)] == [("split", "business"), ("need", "business")]
    assert len(said) == 2


def test_other_fields_may_hold_anything() -> None:
    item = read_item(b'{"url": 5, "title": "A", "price": 1, "rating": NaN, "size": 1e999999999999999999999}')
    assert (item.url, item.words, item.price) == (None, ("a",), 10**12)


def test_malformed_lines_are_named_by_file_and_line() -> None:
    lines = [line(title="a", price=1), b"\n", b" \r\n", b'{"title": "\xff\xe2\x82\xac\n', line(title="b", price=2)]
    said = list(read_feed("1.jl", lines))
    assert [number for number, _ in said] == [1, 4, 5]
    malformed = said[1][1]
    assert isinstance(malformed, Malformed)
    assert str(malformed).startswith("1.jl:4: not JSON: 'utf-8' codec")
    assert json.loads(malformed.as_json())["text"] == '{"title": "\\xff€'


# What a shift is.


def sums_of(titles: Sequence[tuple[set[str], int]]) -> Sums:
    """The sums of titles, each as its words and its price."""
    vocabulary = set().union(*(words for words, _ in titles))
    return Sums(
        items=len(titles),
        price=sum(price for _, price in titles),
        squares=sum(price**2 for _, price in titles),
        words={
            word: (sum(word in words for words, _ in titles), sum(price for words, price in titles if word in words))
            for word in vocabulary
        },
    )


TITLES = st.lists(st.tuples(st.sets(st.sampled_from("abcde")), st.integers(0, 10**24)), min_size=1)


@given(TITLES)
def test_a_shift_is_what_its_definition_says(titles: Sequence[tuple[set[str], int]]) -> None:
    pairs = [(word, price) for words, price in titles for word in words]
    shifts = shifts_of(sums_of(titles))
    assert {shift.word for shift in shifts} == {word for word, _ in pairs}
    assert list(shifts) == sorted(shifts, key=lambda shift: (-shift.shift, shift.word))
    for shift in shifts:
        own = [price for word, price in pairs if word == shift.word]
        others = [price for word, price in pairs if word != shift.word]
        prices = sum(own) + sum(others)
        assert shift.count == len(own)
        if not others or not prices:
            assert shift.shift == 0.0
        else:
            difference = Fraction(sum(own), len(own)) - Fraction(sum(others), len(others))
            assert shift.shift == float(difference / Fraction(prices, len(pairs)))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_the_error_is_how_far_chance_shifts_a_word(count: int) -> None:
    """Over all ways to put a word into so many of six titles; weighed by the mean price, which it moves as well."""
    prices = [3, 1, 4, 1, 5, 9]
    moved, errors = [], []
    for chosen in combinations(range(6), count):
        titles = [({"base", "word"} if place in chosen else {"base"}, price) for place, price in enumerate(prices)]
        (shift,) = (shift for shift in shifts_of(sums_of(titles)) if shift.word == "word")
        mean = (sum(prices) + sum(prices[place] for place in chosen)) / (6 + count)
        moved.append(shift.shift * mean)
        errors.append(shift.error * mean)
    assert errors == pytest.approx([pstdev(moved)] * len(errors))


def test_the_error_of_a_single_item_is_0() -> None:
    assert [shift.error for shift in shifts_of(sums_of([({"a", "b"}, 5)]))] == [0.0, 0.0]


# What a folder says.


def test_each_file_is_read_once_and_each_url_counts_once(tmp_path: Path) -> None:
    """Whatever the order in which files come: the feed of an attempt that was sent again may lie there as well."""
    feeds = {
        "1_distr.jl": feed({"url": "/1", "title": "flat", "price": 1}, {"url": "/1", "title": "later", "price": 9}),
        "2.2_distr.jl": feed({"url": "/2", "title": "loft", "price": 2}, {"url": "/1", "title": "again", "price": 8}),
        "2_distr.jsonl": feed({"url": "/2", "title": "again", "price": 7}, *EXAMPLE, *EXAMPLE) + "cut",
    }
    answers = []
    for place, names in enumerate((sorted(feeds), sorted(feeds, reverse=True))):
        folder = tmp_path / str(place)
        folder.mkdir()
        tables = Tables(folder)
        assert not tables.read()
        for name in names:
            land(folder, name, feeds[name])
            assert tables.read()
            assert not tables.read()
        assert tables.analysis() == analyse(folder)
        answers.append(tables.analysis())
    assert answers[0] == answers[1]
    assert answers[0].files == 3
    assert answers[0].items == 6
    assert answers[0].malformed == 1
    assert answers[0].first_malformed == "2_distr.jsonl:6: not JSON: Expecting value: line 1 column 1 (char 0)"
    counts = {shift.word: shift.count for shift in answers[0].shifts}
    assert counts == {"flat": 1, "loft": 1, "split": 2, "business": 4, "need": 2}


@pytest.mark.parametrize("name", [".1.jl", "_1.jl", "_x=1.jl", "1.json", "1.JL", "1.jl.part", "jl"])
def test_what_is_no_feed_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(feed(*EXAMPLE))
    (tmp_path / "folder.jl").mkdir()
    assert analyse(tmp_path) == Analysis(shifts=(), items=0, files=0, malformed=0)


def test_table() -> None:
    shifts = tuple(Shift(word=f"w{n}", shift=0.1 - n / 100, count=1000 + n, error=0.0123) for n in range(5))
    analysis = Analysis(shifts=shifts, items=5000, files=7, malformed=1)
    assert as_table(analysis, 1).splitlines() == [
        "5,000 items in 7 files; malformed lines: 1",
        "    shift   ± error   listings  word",
        "  +10.00%     1.23%      1,000  w0",
        "      ...",
        "   +6.00%     1.23%      1,004  w4",
    ]
    assert len(as_table(analysis, 3).splitlines()) == 2 + 5
