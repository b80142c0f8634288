"""What the nodes are doing.

snapshot: all of them at one moment, and in words; watch: again and again; local: workers on this machine.
"""
