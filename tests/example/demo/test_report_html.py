"""The HTML report: what stands in it, that it needs nothing else, and that nothing of a page becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from charts import Curve, Scale, bar, interval, panel, scale_around
from demo_results import RESULT, STARTED, a_run, a_shift, an_attempt
from report import ATTEMPTS_SHOWN, SAMPLES_SHOWN, percent, render, speeds, thinned, write_report
from result import Account, Failure, Result, Sample
from shifts import Analysis

HOSTILE = """</title><script src="http://evil">'&x</script>"""
VOID = {"meta", "line", "rect", "circle", "polyline"}


class Page(HTMLParser):
    """The words of a page without its style and titles, its tags and attributes. Each end tag must end what is open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["title"]):
            self.words.append(data)


def some_samples(number: int) -> list[Sample]:
    return [Sample(seconds=1.0 * n, served=10 * n, pages=11 * n, landed=10 * n // 25 * 25) for n in range(number)]


def page(result: Result) -> Page:
    html = render(result)
    assert not re.search(r"\b(nan|inf)\b", html.partition("</style>")[2])
    return Page(html)


# --- the page ---


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    write_report(replace(RESULT, samples=some_samples(5)), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "image", "use"}
    assert not found.attributes & {"src", "href", "srcset"}
    assert not re.search(r"https?:|//|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html


def test_the_headline_says_whether_it_is_complete() -> None:
    assert page(RESULT).text.startswith("Complete. 2 items for 2 properties: each exactly once")
    missing = replace(RESULT, items=1, missing=1)
    assert page(missing).text.startswith("Not complete. 1 item for 2 properties: 1 missing")
    assert "1.5 pages/s" in page(RESULT).text


def test_what_else_may_lack_is_told() -> None:
    assert "merge.log" not in page(RESULT).text
    assert "Not complete. 2 items for 2 properties: each exactly once" in page(replace(RESULT, merged=False)).text
    assert "A feed that counts is missing" in page(replace(RESULT, merged=False)).text
    assert "does not hold or is not settled" in page(replace(RESULT, balanced=False)).text


def test_truth_stands_beside_the_estimate_with_its_listings() -> None:
    text = page(RESULT).text
    assert "pool +11.0% +10.0% ± 2.0 5" in text
    assert "basement \N{MINUS SIGN}20.0% none 0" in text
    assert "1 of 1 words have the truth within two standard errors" in text
    assert "could not be read" not in text


def test_malformed_lines_are_told() -> None:
    assert (
        "3 lines could not be read as an item"
        in page(replace(RESULT, analysis=replace(RESULT.analysis, malformed=3))).text
    )


def test_of_many_other_words_the_extremes_are_shown() -> None:
    shifts = tuple(a_shift(f"word{number}", 0.5 - number / 100) for number in range(30))
    truth = {**RESULT.truth, **{shift.word: 0.0 for shift in shifts}}
    shown = replace(RESULT, analysis=Analysis(shifts=shifts, items=9, files=1, malformed=0), truth=truth)
    words = re.findall(r"word\d+", page(shown).text)
    assert words == [f"word{number}" for number in (*range(10), *range(20, 30))]


def test_no_failure_is_said_plainly_and_failures_are_counted_by_reason() -> None:
    assert "None: no request has failed" in page(RESULT).text
    failures = (Failure(state="failed", reason="http 404", count=1200, example="http://a/1"),)
    text = page(replace(RESULT, account=replace(RESULT.account, failures=failures))).text
    assert "failed http 404 1,200 http://a/1" in text
    assert "None: no request" not in text


def test_of_many_jobs_those_that_do_not_count_are_shown_first() -> None:
    attempts = tuple(an_attempt(f"{number}", state="accepted") for number in range(2 * ATTEMPTS_SHOWN))
    lost = replace(an_attempt("77.2", "n2", "rejected"), reason="no receipt", ended=None, bound=STARTED + 9.0)
    text = page(replace(RESULT, account=replace(RESULT.account, attempts=(*attempts, lost)))).text
    assert "77.2 n2 rejected: no receipt" in text
    assert f"And {ATTEMPTS_SHOWN + 1} jobs more" in text


def test_the_time_of_a_job_begins_with_the_run() -> None:
    under_way = replace(an_attempt("2"), state="sent", bound=STARTED + 9.0, ended=None)
    html = render(replace(RESULT, account=replace(RESULT.account, attempts=(an_attempt(), under_way))))
    assert "job 1: 0.0 s to 1.0 s" in html
    assert "job 2: 9.0 s to no end" in html


def test_nothing_of_a_page_becomes_markup() -> None:
    attempt = replace(an_attempt(HOSTILE, HOSTILE, "rejected"), reason=HOSTILE)
    failure = Failure(state=HOSTILE, reason=HOSTILE, count=1, example=HOSTILE)
    hostile = replace(
        RESULT,
        nodes=(HOSTILE,),
        balance=HOSTILE,
        account=Account(run=a_run(HOSTILE), attempts=(attempt,), failures=(failure,)),
        analysis=replace(RESULT.analysis, shifts=(a_shift(HOSTILE, 0.1), a_shift(f"{HOSTILE}2", 0.1))),
        truth={HOSTILE: 0.1, f"{HOSTILE}2": 0.0},
        known=(HOSTILE,),
    )
    found = page(hostile)
    assert "script" not in found.tags
    assert "src" not in found.attributes
    assert found.text.count(" ".join(HOSTILE.split())) >= 8


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_few_other_words(number: int) -> None:
    shifts = tuple(a_shift(f"word{n}", 0.1) for n in range(number))
    text = page(replace(RESULT, analysis=replace(RESULT.analysis, shifts=shifts))).text
    assert re.findall(r"word\d", text) == ["word0", "word1", "word2"][:number]


@pytest.mark.parametrize("samples", [0, 1, 2, 5000])
def test_any_number_of_samples(samples: int) -> None:
    text = page(replace(RESULT, samples=some_samples(samples))).text
    assert ("over before anybody looked" in text) is (samples < 2)


def test_a_crawl_that_brought_nothing() -> None:
    nothing = Analysis(shifts=(), items=0, files=0, malformed=0)
    account = Account(run=a_run(), attempts=(), failures=())
    empty = replace(RESULT, items=0, missing=2, pages=0, account=account, analysis=nothing, samples=some_samples(2))
    text = page(empty).text
    assert "Too few items to tell" in text
    assert "n1 0 0 of 0" in text


def test_it_says_which_properties_of_a_node_are_counted() -> None:
    attempts = (an_attempt("1", "n1", "rejected", items=150), an_attempt("1.2", "n2", items=2))
    text = page(replace(RESULT, account=replace(RESULT.account, attempts=attempts))).text
    assert "Counted are the properties of jobs that count" in text
    assert "n1 0 0 of 1 n2 2 1 of 1" in text


def test_workers_on_this_machine_are_a_node_and_are_explained() -> None:
    assert "need no Scrapyd" not in page(RESULT).text
    here = replace(RESULT, nodes=("local", "n1"))
    assert "local are the workers on this machine, which need no Scrapyd." in page(here).text
    assert "local 0 0 of 0 n1 2 1 of 1" in page(here).text


# --- over time ---


def test_speeds_are_those_between_two_samples() -> None:
    samples = [
        Sample(seconds=0.0, served=0, pages=0, landed=0),
        Sample(seconds=2.0, served=0, pages=10, landed=0),
        Sample(seconds=2.0, served=0, pages=10, landed=0),
        Sample(seconds=3.0, served=0, pages=40, landed=0),
    ]
    assert speeds(samples) == [(0.0, 5.0), (2.0, 30.0), (3.0, 30.0)]


@pytest.mark.parametrize("number", [1, 2, SAMPLES_SHOWN, SAMPLES_SHOWN + 1, 1000])
def test_thinned_samples_keep_both_ends(number: int) -> None:
    samples = some_samples(number)
    kept = thinned(samples, SAMPLES_SHOWN)
    assert (kept[0], kept[-1]) == (samples[0], samples[-1])
    assert len(kept) <= SAMPLES_SHOWN + 1
    assert len({sample.seconds for sample in kept}) == len(kept)


# --- charts ---


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 3000, [0, 1000, 2000, 3000]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.19, 0.19, [-0.1, 0, 0.1]),
        (0, 14, [0, 2, 4, 6, 8, 10, 12, 14]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low=low, high=high).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("high", [0.003, 0.07, 0.9, 1.0, 3.0, 10.0, 47.3, 999.0, 50_000.0])
def test_there_are_a_few_ticks_on_any_scale(high: float) -> None:
    ticks = Scale(low=0, high=high).ticks()
    assert 4 <= len(ticks) <= 9
    assert 0 <= ticks[0] < ticks[-1] <= high * (1 + 1e-9)


@pytest.mark.parametrize("half", [3e-5, 0.0006, 0.0012, 0.004, 0.019, 0.19, 0.9])
def test_no_two_ticks_in_per_cent_read_the_same(half: float) -> None:
    scale = Scale(low=-half, high=half)
    shown = [percent(scale.step)(value) for value in scale.ticks()]
    assert len(set(shown)) == len(shown)
    assert [one for one in shown if not re.search("[1-9]", one)] == ["0"]


@pytest.mark.parametrize(
    ("step", "share", "shown"), [(0.1, 0.2, "+20%"), (0.01, -0.02, "\N{MINUS SIGN}2%"), (0.002, 0.004, "+0.4%")]
)
def test_ticks_in_per_cent_have_no_needless_places(step: float, share: float, shown: str) -> None:
    assert percent(step)(share) == shown


def test_positions_are_percentages() -> None:
    scale = Scale(low=-1, high=3)
    assert [scale.at(value) for value in (-9, -1, 0, 3, 9)] == [0, 0, 25, 100, 100]


def test_a_scale_has_room_for_all_values_and_0() -> None:
    scale = scale_around([0.1, 0.3])
    assert scale.low < 0
    assert scale.high > 0.3
    assert scale_around([]).at(0) == 50


def test_an_interval_is_drawn_where_it_belongs() -> None:
    drawn = interval(Scale(low=0, high=10), truth=5, estimate=6, error=2, label="a <b>")
    assert '<circle class="estimate" cx="60.00%"' in drawn
    assert '<line class="truth" x1="50.00%" x2="50.00%"' in drawn
    assert '<line class="error" x1="40.00%" x2="80.00%"' in drawn
    assert "a &lt;b&gt;" in drawn
    assert "circle" not in interval(Scale(low=0, high=10), truth=5, estimate=None, error=0, label="")


def test_a_bar_goes_from_begin_to_end() -> None:
    assert '<rect class="kind" x="20.00%" width="50.00%"' in bar(Scale(low=0, high=10), 2, 7, kind="kind", label="")


def test_a_step_holds_until_the_next_point() -> None:
    points = [(0, 1), (2, 3), (4, 0)]
    assert Curve(kind="a", points=points).corners() == points
    assert Curve(kind="a", points=points, steps=True).corners() == [(0, 1), (2, 1), (2, 3), (4, 3), (4, 0)]


def test_a_panel_has_its_curves_upside_up() -> None:
    drawn = panel(
        [Curve(kind="served", points=[(0, 0), (5, 10)])], Scale(low=0, high=10), Scale(low=0, high=10),
        shown_x=str, shown_y=str, label="",
    )  # fmt: skip
    assert '<polyline class="served" points="0.00,100.00 50.00,0.00"/>' in drawn
