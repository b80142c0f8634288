"""Is a request the fleet's? The same on both sides.

diverter: rule, callback or meta; key and text of what is. callbacks: those that are named. finds: what a worker may
report. offsite: the project's own rule. fingerprint: the project's own, and quicker. duplicates: whether there are any.
jars: the cookies of the crawl. shared: objects that requests share.
"""
