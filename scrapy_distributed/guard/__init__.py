"""No request of a crawl reaches a Scrapyd of its fleet.

guard: the middleware. hosts: where a host name leads to.
"""
