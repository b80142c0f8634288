"""The crawl that you start.

coordinator: Scrapy's hooks, and the wiring. walk: its own pages. diversion: what those yield for the fleet.
discoveries: what workers have found. cutter: when a batch is cut (open_batch: how full the open one is; batch_size: how
large the next one should be). ending: when and why the crawl closes. summary: what is said then. identity: which run is
this?
"""
