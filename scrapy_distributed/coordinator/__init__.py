"""The crawl that you start.

coordinator: Scrapy's hooks, and the wiring. walk: its own pages. cutter: when a batch is cut (batcher: the open one;
batch_size: how large the next one should be). discoveries: what workers have found. identity: which run is this?
summary: what is said at the end.
"""
