"""Every setting, once.

config: the table of all, and the record of those of a crawl. values: what each may be. advice: what is said of those
that are hardly meant.
"""
