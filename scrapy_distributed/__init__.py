"""One Scrapy crawl over a whole fleet of stock Scrapyd servers. The rooms, by where their code runs; the docstring of a
folder says what is in it:

| room         | what happens there                                                      | where it runs          |
|--------------|-------------------------------------------------------------------------|------------------------|
| middleware   | which role has this crawl? (role, and addon: one line of settings.py)   | coordinator and worker |
| config       | every setting once                                                      | coordinator and worker |
| guard        | no request of it reaches a Scrapyd of the fleet                         | coordinator and worker |
| divert       | is a request the fleet's?                                               | coordinator and worker |
| wire         | what travels: requests, batches, receipts                               | coordinator and worker |
| coordinator  | takes requests away, cuts them into batches, waits for the end          | coordinator            |
| ledger       | new? queued, in a batch, given to an attempt, settled: one SQLite file  | coordinator            |
| dispatch     | sends batches to nodes, looks after them, judges what comes home        | coordinator            |
| fleet        | the nodes: where they are, one over HTTP, checks, deploys, local ones   | coordinator, commands  |
| worker       | the batch becomes the start, each request's end is noted and reported   | worker                 |
| results      | the feeds that count become one file                                    | commands               |
| monitor      | what the nodes are doing                                                | commands               |
| commands     | ``scrapy fleet``, ``batches`` and ``monitor``                           | commands               |
| fast, warm   | optional: cheaper workers; nodes that start them at once                | worker; node           |

errors, words, password, together: the tree of what can go wrong; text for people; what hides passwords; many
coroutines at once.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Addon"]


def __getattr__(name: str) -> Any:
    # This file runs on every ``scrapy`` call in an environment that has the package: it imports nothing by itself.
    if name == "Addon":
        from scrapy_distributed.addon import Addon

        return Addon
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
