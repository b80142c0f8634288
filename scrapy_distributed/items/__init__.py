"""The items that workers scrape, as lines of a file that the coordinator fetches and gives to its own feeds.

lines: item <-> line, and what a file of them may hold. values: the values in an item <-> JSON, nested in one another.
leaves: those that hold no others, and that JSON does not know. classes: which ones an item may be of, how they are
found by their names, and filled.
"""
