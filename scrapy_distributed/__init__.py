"""One Scrapy crawl over a whole fleet of stock Scrapyd servers. The journey of a request, station by station:

| file        | what happens there                                                       |
|-------------|--------------------------------------------------------------------------|
| middleware  | which role has this crawl?                                               |
| guard       | no request of it reaches a Scrapyd of the fleet (addresses: of a host)   |
| coordinator | takes requests away, keeps the crawl open until the run is settled       |
| divert      | is it the fleet's? what the ledger gets of it                            |
| wire        | request <-> JSON, batch <-> setting value, the byte ceiling              |
| ledger      | new? queued, in a batch, given to an attempt, settled: one SQLite file   |
|             | (schema: its tables; seen: its seen-set; ledger_reader: what is shown)   |
| batch       | a batch, its attempts, their states; batch_size: how large it should be  |
| fleet       | where the nodes are; health: which can be used, whose turn it is         |
|             | (local_credentials: the passwords of those of ``scrapy fleet up``)       |
| preflight   | does every node answer, know us, and have the project? doctor: and more  |
| dispatch    | send, ask, take receipts, take back, end; job_template: what a job gets  |
| node        | one Scrapyd over HTTP; connection: within limits; answer: in words       |
| worker      | the batch becomes the start; ticket, outcomes: each request's end;       |
|             | targets: what it finds for the fleet; feeds: is everything stored?       |
|             | (whole_file: a folder that shows whole feeds alone)                      |
| receipt     | what the worker reports, and the way home (password: what it hides)      |
| judge       | does an attempt count? who is to blame if not?                           |
| accounting  | every request in exactly one state; report: the summary                  |
| merge       | the feeds that count become one file (draft: as a whole, or not at all)  |
| fast, warm  | folders, optional: cheaper workers; nodes that start them at once        |
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
