"""Every setting, once.

config: the table of all, and the record of those of a crawl. values: what each may be. advice: what is said of those
that are hardly meant. items_go: where the items of a run go, by several of them
(pipeline_hints: which pipelines should run once). command_line: which arguments and settings of the command go with the
jobs. told: what is said before the first batch (politeness: how often a site is asked). prior: how long
a request takes, by the same settings.
"""
