"""Fast workers: the same crawl for less CPU.

preset: the add-on, and what it changes. http_handler: Scrapy's HTTP/1.1, and others' for what it does not do
(http_connection: one of them; http_answer: what comes over it). meta_refresh: looks before it parses.

HTTP/1.1 is read here and not by a maintained parser, as that is the simpler of the two to keep right. Only http_answer
parses, a quarter of the lines: connections, TLS, time-outs, limits and what counts as lost data are ours with any
parser. The oracle is Scrapy's own handler. Of 73 answers, kind and unkind, of which it makes the same as we, h11 0.16
takes 21 otherwise and httptools 0.9 takes 26. Both refuse lengths that say nothing, and lines without a colon, and
neither bounds a line; h11 waits for the end of a head that is none; httptools can't be told that an answer is one to
HEAD, nor that the connection has ended. To mend that takes about the lines that would go, and a dependency. Speed is no
reason: an answer of 20 to 60 kB, by length or in chunks of 8 kB, costs 40 to 115 us of CPU here, 25 to 35 with
httptools and 145 to 345 with h11, where a page costs 2,800.
The README has a table of all that differs from Scrapy's handler.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # For ADDONS. Nothing is imported by itself: a coordinator wants the names of the preset alone.
    if name == "FastWorker":
        from scrapy_distributed.fast.preset import FastWorker

        return FastWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
