"""What the fleet has brought: feeds.

merge: those that count become one file (formats: an item after the other; draft: as a whole, or not at all; folders:
where they are on this machine).
whole_file: a folder that shows whole feeds alone.
"""
