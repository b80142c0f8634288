"""How the spider of this crawl is run in another process on this machine."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from scrapy import Spider
from scrapy.spiderloader import get_spider_loader
from scrapy.utils.project import get_project_settings, inside_project
from scrapy.utils.spider import iter_spider_classes

from scrapy_distributed.errors import ConfigError


def local_command(kind: type[Spider]) -> tuple[str, str]:
    """What follows ``scrapy``: ``crawl`` and a name, or ``runspider`` and a file. Raises ``ConfigError`` where neither
    comes upon the class *kind*."""
    if _of_project(kind):
        return "crawl", str(kind.name)
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    is_script = kind.__module__ == "__main__"
    if is_script or module is None or file is None or kind.__module__ != Path(file).stem or _last(module) is not kind:
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found workers on this machine, and the spider {kind.__module__}."
            f"{kind.__qualname__}, which they would not find; expected one that 'scrapy crawl' finds in the project of"
            " this folder, or the last one in the file of 'scrapy runspider'. One that a script has in itself is to be"
            " moved into a file of its own"
        )
    return "runspider", str(Path(file).absolute())


def _of_project(kind: type[Spider]) -> bool:
    if not inside_project():
        return False
    with suppress(Exception):  # whatever the project's modules raise: a command could not load them either
        return get_spider_loader(get_project_settings()).load(str(kind.name)) is kind
    return False


def _last(module: object) -> type[Spider] | None:
    """The spider that ``runspider`` takes of the file of *module*."""
    return next(reversed(list(iter_spider_classes(module))), None)  # type: ignore[arg-type]
