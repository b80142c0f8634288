"""Warm start on a node: its jobs are forked from a process that has imported Scrapy.

``launcher`` is Scrapyd's side, ``process`` its view of the warm process and ``forked_job`` of a job; ``fork_server`` is
what the warm process runs, ``job_process`` what a job begins with. Nothing is imported here: importing Scrapyd's side
installs a reactor, which the others must not have.
"""
