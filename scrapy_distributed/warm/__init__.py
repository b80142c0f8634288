"""Warm start on a Scrapyd: ``launcher`` has its jobs forked from a process that has imported Scrapy.

Nothing is imported here: importing the launcher installs a reactor.
"""
