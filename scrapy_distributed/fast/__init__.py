"""Fast workers: the same crawl for less CPU.

preset: the add-on, and what it changes. http_handler: Scrapy's HTTP/1.1, and others' for what it does not do
(http_connection: one of them; http_answer: what comes over it). meta_refresh: looks before it parses.

HTTP/1.1 is read here and not by a maintained parser, as that is the simpler of the two to keep right. Only http_answer
parses, 243 of 912 lines: connections, TLS, time-outs, limits and what counts as lost data are ours with any parser. The
oracle is Scrapy's own handler, and of the 73 answers that tests give to both, h11 0.16 takes 21 otherwise and
httptools 0.9 takes 26: refuses lengths that are repeated or of no use and lines that browsers skip, waits for more of
what is no HTTP, has no limit of a line. httptools can't even be told that an answer is one to HEAD, nor that the
connection has ended. To mend that takes about the lines that would go, and a dependency. It is not for speed: CPU of an
answer of 20 to 60 kB, as it is here 40 to 115 us, with httptools 25 to 35, with h11 145 to 345, where a page has 2,800.
The README has a table of all that differs from Scrapy's handler.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # For ADDONS. Nothing is imported by itself: a coordinator wants the names of the preset alone.
    if name == "FastWorker":
        from scrapy_distributed.fast.preset import FastWorker

        return FastWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
