"""How often a site is asked at most: Scrapy's limits are those of one process, and each worker is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from scrapy import Spider
from scrapy.core import downloader
from scrapy.settings import SETTINGS_PRIORITIES, BaseSettings

from scrapy_distributed.words import shortened

NAMES = (
    "DOWNLOAD_DELAY", "CONCURRENT_REQUESTS", "CONCURRENT_REQUESTS_PER_DOMAIN", "CONCURRENT_REQUESTS_PER_IP",
    "DOWNLOAD_SLOTS", "AUTOTHROTTLE_ENABLED", "AUTOTHROTTLE_TARGET_CONCURRENCY", "AUTOTHROTTLE_START_DELAY",
)  # fmt: skip
#: Deprecated attributes of a spider, and what they set.
ATTRIBUTES = {"download_delay": "DOWNLOAD_DELAY", "max_concurrent_requests": "CONCURRENT_REQUESTS_PER_DOMAIN"}
#: In Scrapy 2.14 they win over all settings; later they have the priority of a spider's.
ATTRIBUTES_WIN = hasattr(downloader, "_get_concurrency_delay")
SLOTS_SHOWN = 3
A_SECOND = "a second on average"


class Limit(NamedTuple):
    """At most *number* requests *unit*, by the setting *name*."""

    number: float
    unit: str
    name: str


def politeness(
    settings: BaseSettings, job: Mapping[str, str], spider: Spider | type[Spider] | None, *, nodes: int, slots: int = 0,
    joined: int | None = None,
) -> str:  # fmt: skip
    """What a site gets of a crawl with *settings*. *job*: what a job gets of them; *spider*: that of the crawl, or its
    class; *nodes*: how many Scrapyds, of which each alone knows how many jobs it runs at once; *slots*: how many
    workers there are on this machine; *joined*: how many jobs workers run at once that have joined a shared run
    (``None``: it is none)."""
    of_worker = settings_of_worker(settings, job, spider)
    try:
        limits, of_slots = limits_of(of_worker, {}), _of_slots(of_worker)
    except (ValueError, TypeError, AttributeError) as error:  # Scrapy fails with the same, in each job
        return f"not known, a job can't read its settings: {shortened(str(error))}"
    each = " and ".join(f"{_number(limit.number)} {limit.unit} ({limit.name})" for limit in limits)
    if joined is not None:
        all_now = " and ".join(f"{_number(joined * limit.number)} {limit.unit}" for limit in limits)
        more = (
            f"With the {joined:,} slots that have joined that is {all_now}" if joined > 1 else "More slots, more of it"
        )
        return f"from each job at most {each}{of_slots}. {more}. What is crawled here comes on top"
    of_all = " and ".join(f"{_number((nodes + slots) * limit.number)} {limit.unit}" for limit in limits)
    here = [f"{slots} worker{'s' if slots > 1 else ''} on this machine"] if slots else []
    there = [f"one job at a time on each node ({nodes})"] if nodes else []
    more = "; a node runs as many as its max_proc lets it" if nodes else ""
    return (
        f"from each worker at most {each}{of_slots}. With {' and '.join(here + there)} that is {of_all}{more}. What is"
        " crawled here comes on top"
    )


def settings_of_worker(
    settings: BaseSettings, job: Mapping[str, str], spider: Spider | type[Spider] | None
) -> BaseSettings:
    """Those of ``NAMES``, as a job has them."""
    values = {name: job.get(name, settings.get(name)) for name in NAMES}
    found = BaseSettings({name: value for name, value in values.items() if value is not None})
    for attribute, name in ATTRIBUTES.items():
        value = getattr(spider, attribute, None)
        is_set = name in job or (settings.getpriority(name) or 0) >= SETTINGS_PRIORITIES["spider"]
        if value is not None and (ATTRIBUTES_WIN or not is_set):
            found.set(name, value)
    return found


def limits_of(settings: BaseSettings, slot: Mapping[str, Any]) -> list[Limit]:
    """*slot*: what ``DOWNLOAD_SLOTS`` says of it."""
    at_once = _at_once(settings, slot)
    delay = slot.get("delay", settings.getfloat("DOWNLOAD_DELAY"))
    limits = []
    target = settings.getfloat("AUTOTHROTTLE_TARGET_CONCURRENCY")
    if settings.getbool("AUTOTHROTTLE_ENABLED") and target > 0:
        delay = settings.getfloat("DOWNLOAD_DELAY")  # that of a slot is only its first one then
        limits = [min(at_once, Limit(target, "at once on average", "AUTOTHROTTLE_TARGET_CONCURRENCY"))]
    if delay > 0:
        limits.append(Limit(1 / delay, A_SECOND, f"DOWNLOAD_DELAY = {_number(delay)}"))
    return limits or [at_once]


def _at_once(settings: BaseSettings, slot: Mapping[str, Any]) -> Limit:
    of_ip = settings.getint("CONCURRENT_REQUESTS_PER_IP")
    name = "CONCURRENT_REQUESTS_PER_IP" if of_ip else "CONCURRENT_REQUESTS_PER_DOMAIN"
    number = slot.get("concurrency", of_ip or settings.getint(name))
    if 0 < (total := settings.getint("CONCURRENT_REQUESTS")) < number:
        name, number = "CONCURRENT_REQUESTS", total
    return Limit(number, "at once", name)


def _of_slots(settings: BaseSettings) -> str:
    """What download slots with limits of their own get, by name; '' where there are none."""
    slots = settings.getdict("DOWNLOAD_SLOTS")
    told = [
        f"{shortened(str(name), 100)}: " + " and ".join(f"{_number(limit.number)} {limit.unit}" for limit in limits)
        for name, limits in ((name, limits_of(settings, slot)) for name, slot in list(slots.items())[:SLOTS_SHOWN])
    ]
    more = f", and {len(slots) - len(told)} more" if len(slots) > len(told) else ""
    return f", by DOWNLOAD_SLOTS {', '.join(told)}{more}" if told else ""


def _number(number: float) -> str:
    """As people write it: 0.333, 8, 1,500."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
