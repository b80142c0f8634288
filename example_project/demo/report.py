"""The report of a demo: one HTML file with its style and its pictures in it. It asks for nothing over a network, needs
no script, follows a light or dark screen, and can be printed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from charts import Curve, Format, Scale, axis, bar, interval, panel, scale_around
from result import Account, Comparison, Result, Sample, accepted, agreement

from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.records import AttemptRecord
from scrapy_distributed.words import counted

OTHERS_SHOWN = 10  # from above, and from below
ATTEMPTS_SHOWN = 24
FAILURES_SHOWN = 20
SAMPLES_SHOWN = 150

STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")


def write_report(result: Result, path: Path) -> None:
    """Write the report, in place of what is there."""
    path.write_text(render(result), encoding="utf-8")


def render(result: Result) -> str:
    """The report as one HTML page."""
    sections = [
        headline(result),
        known_words(result),
        other_words(result.others),
        progress(result),
        nodes(result),
        failures(result.account),
        attempts(result.account),
        proof(result),
    ]
    title = f"{'Complete' if result.good else 'Not complete'}: {result.properties:,} properties"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


# --- the sections ---


def headline(result: Result) -> str:
    """Complete or not, and the figures of the crawl."""
    verdict, kind = ("Complete", "good") if result.good else ("Not complete", "bad")
    jobs = sum(accepted(attempt) for attempt in result.account.attempts)
    failed = sum(failure.count for failure in result.account.failures)
    facts = [
        ("time", f"{result.seconds:.1f} s", "from the start of the crawl to its end"),
        ("speed", f"{amount(result.pages_per_second)} pages/s", counted(result.pages, "page")),
        ("fleet", counted(len(result.items_by_node), "node"), f"with {counted(jobs, 'job')} of use"),
        ("failures", f"{failed:,}" if failed else "none", "failed, filtered or dead requests"),
    ]
    cards = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in facts)
    return (
        f'<header><h1><span class="{kind}">{verdict}.</span> {result.count}</h1>'
        f'<p class="quiet">run {escape(result.account.run.name)}</p>{complaints(result)}'
        f'<dl class="facts">{cards}</dl></header>'
    )


def complaints(result: Result) -> str:
    """What lacks besides properties."""
    lacking = []
    if not result.merged:
        lacking.append("A feed that counts is missing, or is not as it was reported: see merge.log, beside this file.")
    if not result.balanced:
        lacking.append("The balance, at the end of this page, does not hold or is not settled.")
    return "".join(f'<p class="bad">{text}</p>' for text in lacking)


def known_words(result: Result) -> str:
    """Truth beside estimate, for the words whose effect the site tells."""
    known = result.comparisons
    scale = scale_of(known)
    rows = "".join(
        f'<tr><th scope="row">{escape(one.word)}</th><td class="plot">{interval_of(scale, one)}</td>'
        f'<td class="number">{signed(one.truth)}</td>{estimate_cells(one)}</tr>'
        for one in known
    )
    return f"""<section><h2>Which words move the price</h2>
<p>The shift of a word is (mean price with it &minus; mean price without it) / mean price of all, over the words of all
titles. {agreement(known).capitalize()}.</p>
<p class="quiet"><span class="key truth"></span> truth, as the site tells it &ensp;
<span class="key"></span> estimate from {counted(result.analysis.items, "item")}, &plusmn; 2 standard errors</p>
<table class="wide words"><thead><tr><th>word</th><th class="plot">{axis(scale, percent(scale.step))}</th>
<th class="number">truth</th><th class="number">estimate</th><th class="number">listings</th></tr></thead>
<tbody>{rows}</tbody></table>{malformed(result.analysis.malformed)}</section>"""


def other_words(others: Sequence[Comparison]) -> str:
    """The words that the site draws without regard to the price, from both ends."""
    if not others:
        return "<section><h2>Other words</h2><p>None that some titles have and others have not.</p></section>"
    if len(others) <= 2 * OTHERS_SHOWN:
        half = -(-len(others) // 2)
        parts = [("", part) for part in (others[:half], others[half:]) if part]
    else:
        parts = [("Highest", others[:OTHERS_SHOWN]), ("Lowest", others[-OTHERS_SHOWN:])]
    heads = (f"<h3>{name}</h3>" if name else "" for name, _ in parts)
    tables = "".join(f"<div>{head}{word_table(part)}</div>" for head, (_, part) in zip(heads, parts, strict=True))
    return f"""<section><h2>Other words</h2>
<p class="quiet">They say nothing about the price. Their true shift is a little below 0, since titles with many words
are dearer here. {agreement(others).capitalize()}. What is in every title is left out.</p>
<div class="pair">{tables}</div></section>"""


def word_table(words: Iterable[Comparison]) -> str:
    """Words with shift, uncertainty and listings."""
    rows = "".join(f'<tr><th scope="row">{escape(one.word)}</th>{estimate_cells(one)}</tr>' for one in words)
    head = '<tr><th>word</th><th class="number">estimate</th><th class="number">listings</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def progress(result: Result) -> str:
    """What was served and what has landed over time, and the speed."""
    samples = thinned(result.samples, SAMPLES_SHOWN)
    if len(samples) < 2:
        return '<section><h2>Progress</h2><p class="quiet">The crawl was over before anybody looked.</p></section>'
    time = Scale(low=0.0, high=samples[-1].seconds)
    most = max(1, *(max(one.served, one.landed) for one in samples))
    served = Curve(kind="served", points=[(one.seconds, one.served) for one in samples])
    landed = Curve(kind="landed", points=[(one.seconds, one.landed) for one in samples], steps=True)
    speed = Curve(kind="speed", points=speeds(samples), steps=True)
    fastest = max(1.0, *(value for _, value in speed.points))
    amounts = panel(
        [served, landed], time, Scale(low=0, high=most), shown_x=seconds, shown_y=amount,
        label=f"properties served and items landed in {time.high:.0f} s",
    )  # fmt: skip
    rates = panel(
        [speed], time, Scale(low=0, high=fastest), shown_x=seconds, shown_y=amount,
        label=f"pages per second, at most {fastest:.0f}",
    )  # fmt: skip
    return f"""<section><h2>Progress</h2>
<figure><figcaption><span class="key served"></span> properties that the site has served &ensp;
<span class="key landed"></span> items that have landed: a worker delivers its feed when its batch is done</figcaption>
{amounts}</figure>
<figure><figcaption>Pages per second: each batch begins with the start of a worker</figcaption>
{rates}</figure></section>"""


def nodes(result: Result) -> str:
    """Who has crawled how much."""
    account, items = result.account, result.items_by_node
    scale = Scale(low=0, high=max([1, *items.values()]))
    jobs = Counter(attempt.node for attempt in account.attempts)
    counting = Counter(attempt.node for attempt in account.attempts if accepted(attempt))
    rows = "".join(
        f'<tr><th scope="row">{escape(node)}</th>'
        f'<td class="plot">{bar(scale, 0, count, kind="accepted", label=f"{node}: {count:,} items")}</td>'
        f'<td class="number">{count:,}</td><td class="number">{counting[node]:,} of {jobs[node]:,}</td></tr>'
        for node, count in items.items()
    )
    local = f" <code>{LOCAL}</code> are the workers on this machine, which need no Scrapyd." if LOCAL in items else ""
    return f"""<section><h2>Nodes</h2>
<p class="quiet">Counted are the properties of jobs that count: what a node has crawled in others went out
again.{local}</p>
<table class="wide nodes"><thead><tr><th>node</th><th class="plot"></th><th class="number">properties</th>
<th class="number">jobs that count</th></tr></thead><tbody>{rows}</tbody></table></section>"""


def failures(account: Account) -> str:
    """Requests that did not end well, by reason."""
    if not account.failures:
        return "<section><h2>Failures</h2><p>None: no request has failed, was filtered or is dead.</p></section>"
    shown = account.failures[:FAILURES_SHOWN]
    more = len(account.failures) - len(shown)
    rows = "".join(
        f'<tr><th scope="row">{escape(one.state)}</th><td class="said">{escape(one.reason)}</td>'
        f'<td class="number">{one.count:,}</td><td class="said">{escape(one.example)}</td></tr>'
        for one in shown
    )
    return f"""<section><h2>Failures</h2>
<table><thead><tr><th>outcome</th><th>reason</th><th class="number">requests</th><th>the first of them</th></tr></thead>
<tbody>{rows}</tbody></table>{left_out(more, "reason", "scrapy batches failed")}</section>"""


def attempts(account: Account) -> str:
    """The jobs, with their time at the node; those that do not count come before the rest if not all are shown."""
    started = account.run.started
    chosen = sorted(account.attempts, key=accepted)[:ATTEMPTS_SHOWN]
    ends = [attempt.ended - started for attempt in account.attempts if attempt.ended is not None]
    time = Scale(low=0.0, high=max([1.0, *ends]))
    rows = "".join(attempt_row(time, started, one) for one in sorted(chosen, key=lambda one: one.bound))
    return f"""<section><h2>Jobs</h2>
<p class="quiet">Each bar goes from when a node was given the job to when its receipt was taken;
a job may wait there for a free place. <code>2.3</code> is the third attempt at batch 2.</p>
<table class="wide jobs"><thead><tr><th>job</th><th class="plot">{axis(time, seconds)}</th><th>node</th><th>state</th>
<th class="number">requests</th></tr></thead><tbody>{rows}</tbody></table>
{left_out(len(account.attempts) - len(chosen), "job", "scrapy batches show")}</section>"""


def attempt_row(time: Scale, started: float, attempt: AttemptRecord) -> str:
    """One job of a run that started at *started*, in seconds since the epoch."""
    kind = "accepted" if accepted(attempt) else "rejected"
    begun = attempt.bound - started
    end = time.high if attempt.ended is None else attempt.ended - started
    until = "no end" if attempt.ended is None else f"{end:.1f} s"
    drawn = bar(time, begun, end, kind=kind, label=f"job {attempt.label}: {begun:.1f} s to {until}")
    why = "" if accepted(attempt) or not attempt.reason else f": {escape(attempt.reason)}"
    return (
        f'<tr><th scope="row">{escape(attempt.label)}</th><td class="plot">{drawn}</td><td>{escape(attempt.node)}</td>'
        f'<td class="said">{escape(attempt.state)}{why}</td><td class="number">{attempt.size:,}</td></tr>'
    )


def proof(result: Result) -> str:
    """What ``scrapy batches check`` has said."""
    return f"""<section><h2>Balance</h2>
<p class="quiet">What <code>scrapy batches check</code> says: every request that was sent to the fleet is in exactly one
of these states.</p><pre>{escape(result.balance)}</pre></section>"""


# --- parts of sections ---


def interval_of(scale: Scale, one: Comparison) -> str:
    """The picture of one word with its error bar."""
    if one.estimate is None:
        label = f"{one.word}: truth {signed(one.truth)}, no estimate"
        return interval(scale, truth=one.truth, estimate=None, error=0.0, label=label)
    label = f"{one.word}: truth {signed(one.truth)}, estimate {signed(one.estimate.shift)}"
    return interval(scale, truth=one.truth, estimate=one.estimate.shift, error=2 * one.estimate.error, label=label)


def scale_of(known: Iterable[Comparison]) -> Scale:
    """A scale on which all truths, estimates and error bars are."""
    values = []
    for one in known:
        values.append(one.truth)
        if one.estimate is not None:
            values += [one.estimate.shift - 2 * one.estimate.error, one.estimate.shift + 2 * one.estimate.error]
    return scale_around(values)


def estimate_cells(one: Comparison) -> str:
    """Estimate with its uncertainty, and the number of listings behind it."""
    if one.estimate is None:
        return '<td class="number">none</td><td class="number">0</td>'
    return (
        f'<td class="number">{signed(one.estimate.shift)} &plusmn; {200 * one.estimate.error:.1f}</td>'
        f'<td class="number">{one.estimate.count:,}</td>'
    )


def thinned(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    """Samples at even distances, and the last one; not many more than ``most``."""
    step = max(1, -(-len(samples) // most))
    return [*samples[:-1:step], *samples[-1:]]


def speeds(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """Pages per second between one sample and the next, from the time of the first of the two."""
    pairs = [(a, b) for a, b in pairwise(samples) if b.seconds > a.seconds]
    rates = [(b.pages - a.pages) / (b.seconds - a.seconds) for a, b in pairs]
    return [(a.seconds, rate) for (a, _), rate in zip(pairs, rates, strict=True)] + [
        (samples[-1].seconds, rates[-1] if rates else 0.0)
    ]


def malformed(lines: int) -> str:
    """Lines that the analysis has set aside, if any."""
    return f'<p class="bad">{counted(lines, "line")} could not be read as an item.</p>' if lines else ""


def left_out(more: int, what: str, command: str) -> str:
    """That a table does not show all, and which command does."""
    return f'<p class="quiet">And {counted(more, what)} more: <code>{command}</code> tells.</p>' if more else ""


# --- numbers in words ---


def signed(share: float) -> str:
    """A fraction in per cent, with its sign."""
    return f"{100 * share:+.1f}%".replace("-", "\N{MINUS SIGN}")


def percent(step: float) -> Format:
    """Fractions in per cent, with their sign unless they are 0, and with the decimal places that tell one from the next
    ``step``, which is round."""
    places = max(0, math.ceil(-math.log10(100 * step) - 1e-9))

    def shown(share: float) -> str:
        return f"{100 * share:+.{places}f}%".replace("-", "\N{MINUS SIGN}") if abs(share) > step / 2 else "0"

    return shown


def seconds(value: float) -> str:
    """A time, in as few words as fit under an axis."""
    return f"{value:g} s"


def amount(value: float) -> str:
    """A number that may be large; a small one has decimal places, if it needs them."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
