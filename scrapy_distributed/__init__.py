"""One Scrapy crawl over a whole fleet of stock Scrapyd servers. The rooms, by where their code runs; the docstring of a
folder says what is in it:

| room         | what happens there                                                      | where it runs          |
|--------------|-------------------------------------------------------------------------|------------------------|
| middleware   | which role has this crawl? (role, and addon: one line of settings.py)   | coordinator and worker |
| config       | every setting once                                                      | coordinator and worker |
| guard        | no request of it reaches a Scrapyd of the fleet                         | coordinator and worker |
| divert       | is a request the fleet's?                                               | coordinator and worker |
| wire         | what travels: requests, batches, receipts                               | coordinator and worker |
| items        | what comes home from workers, until it is in a feed                     | coordinator and worker |
| coordinator  | takes requests away, cuts them into batches, waits for the end          | coordinator            |
| ledger       | new? queued, in a batch, given to an attempt, settled: one SQLite file  | coordinator            |
| shared       | the same in Redis or Valkey, for workers that join by themselves        | coordinator and worker |
| joining      | such a worker: has this machine crawl batches of shared runs            | commands               |
| dispatch     | sends batches to nodes, looks after them, judges what comes home        | coordinator            |
| fleet        | the nodes: where they are, one over HTTP, checks, deploys, local ones   | coordinator, commands  |
| agent        | starts jobs on this machine, watches and ends them                      | coordinator; node      |
| worker       | the batch becomes the start, each request's end is noted and reported   | worker                 |
| feeds        | is all of a feed stored, and can it be?                                 | coordinator and worker |
| results      | the feeds that count become one file                                    | commands               |
| monitor      | what the nodes are doing                                                | commands               |
| commands     | ``scrapy fleet``, ``batches``, ``monitor`` and ``worker``               | commands               |
| fast, warm   | optional: cheaper workers; nodes that start them at once                | worker; node           |

errors, words, password, together: the tree of what can go wrong; text for people; what hides passwords in the URLs of
feeds; many coroutines at once.

The words, each with one meaning:

coordinator, worker  the crawl that you start; the same spider as a job of Scrapyd, with one batch as its start
node, fleet          one Scrapyd, or this machine; all that a run uses. A *member* is a node in a run
slot                 place for one job of a node that runs; a Scrapyd has as many as its ``max_proc``
agent, warm process  what starts jobs on this machine; what it forks them from
run                  what one command crawls, with all its resumes
walk                 the coordinator's own crawl, which finds the requests for the fleet
target               such a request. *Finds* are targets that a worker has come upon
divert               to take a target away from the crawl and enter it into the ledger, if it is new
cut                  to close a batch: from then on it has a number, and its requests a position
batch, attempt, job  requests that are sent together; one try at them; what Scrapyd calls the same
bound, flight        an attempt has its node from before its POST; it is a flight as long as it is looked after
session              the cookies that the coordinator would send with a request; they go with it
receipt              what a worker says of its job: running ones are signs of life, only the final one counts
settled              of a request: an accepted attempt says what has become of it. *Landed*: where a redirect led it
lease, stall         how long an attempt may be without a sign of life; and without doing anything
lost, fenced         its requests have gone to another attempt; it can't count any more
blame, fate          who is at fault for an attempt that does not count; what that means for its batch
stopped              of a run: a limit or the spider has ended it early; what is left is *not crawled*
halved, dead         two batches of what has died twice; requests whose attempts are used up
join, bench          of a ``scrapy worker``: to take batches of shared runs; to take none, as its jobs come to nothing
doubt, proof, trial  a node that has failed; what it must show; the one job that is to show it
remainder            the requests of an attempt that are not settled
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
