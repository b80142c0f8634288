"""Items that come home, from the worker's file to the coordinator's feeds.

lines: item <-> line, and what a file of them may hold. gleaning: which lines of a worker's file count. spool: what has
come home, until it is in a feed (folder: where a power cut leaves it).
"""
