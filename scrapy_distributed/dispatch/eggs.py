"""The code that jobs on Scrapyds run, as they say it themselves: is it that of this crawl?"""

from __future__ import annotations

import logging

from scrapy import Spider

from scrapy_distributed.wire.code import Egg, code_of

logger = logging.getLogger(__name__)

MOST_TOLD = 20  # eggs: a run has one, and a node that lies as many as it likes


class Eggs:
    """What is in the eggs of the nodes, compared with what this process has loaded *spider* from: before a source can
    be edited that has been loaded."""

    def __init__(self, spider: Spider) -> None:
        self.code = code_of(type(spider))
        self._told: set[Egg] = set()
        self._extra = {"spider": spider}

    def compare(self, node: str, egg: Egg | None) -> None:
        """A job on *node* runs *egg*. Of each one that is another it is said once."""
        if egg is None or egg in self._told or len(self._told) == MOST_TOLD:
            return
        self._told.add(egg)
        if why := egg.differs(self.code):
            logger.warning(
                "%s: %s. This run goes on with both; where all items are to be of one code, interrupt it, deploy, and"
                " begin a new one: the same command with -s DISTRIBUTED_RESUME=False", node, why, extra=self._extra,
            )  # fmt: skip
