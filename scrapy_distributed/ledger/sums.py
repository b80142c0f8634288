"""Sums over what many jobs report. A receipt has a limit of names, and their number has none: so the sums have one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

MOST_STATS = 1_000
MOST_REASONS = 100
HELD = 50_000  # names that are held in memory meanwhile
OTHER = "other reasons"


def sum_of_stats(each: Iterable[Mapping[str, float]]) -> tuple[dict[str, float], int]:
    """The numbers of *each* job, summed; of maxima the largest. Rates have no part in this: neither is true of them.

    Of more than ``MOST_STATS`` names those that most jobs have, of equals the first; and how many numbers of other
    names are left out: a sum of bytes and seconds would tell nothing."""
    total: dict[str, float] = {}
    jobs: Counter[str] = Counter()
    left_out = 0
    for stats in each:
        for name, value in stats.items():
            if name.endswith("_per_minute"):
                continue
            jobs[name] += 1
            is_largest = "max" in name or name.startswith("memusage/")
            total[name] = value if name not in total else max(total[name], value) if is_largest else total[name] + value
        if len(jobs) > HELD:
            jobs, rest = _most_common(jobs, MOST_STATS)
            left_out += rest
            total = {name: total[name] for name in jobs}
    jobs, rest = _most_common(jobs, MOST_STATS)
    left_out += rest
    return {name: value for name, value in total.items() if name in jobs}, left_out


def sum_of_reasons(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The numbers of *each* job by reason, summed. Of more than ``MOST_REASONS`` the largest, of equals the first; the
    sum of the others is that of ``OTHER``."""
    total: Counter[str] = Counter()
    for reasons in each:
        total.update(reasons)
        if len(total) > HELD:
            total = _with_others(total)
    return dict(_with_others(total))


def _with_others(total: Counter[str]) -> Counter[str]:
    others = total.pop(OTHER, 0)
    kept, rest = _most_common(total, MOST_REASONS)
    return kept + Counter({OTHER: others + rest})


def _most_common(counts: Counter[str], most: int) -> tuple[Counter[str], int]:
    """The *most* largest of *counts*, and the sum of the others."""
    kept = Counter(dict(counts.most_common(most)))
    return kept, counts.total() - kept.total()
