"""Items that come home, from the worker's file to the coordinator's feeds.

lines: item <-> line, and what a file of them may hold. values: the values in an item <-> JSON, nested in one another.
leaves: those that hold no others, and that JSON does not know. classes: which ones an item may be of, how they are
found by their names, and filled. spool: what has come home, until it is in a feed.
"""
