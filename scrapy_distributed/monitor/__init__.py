"""What the nodes are doing.

snapshot: all of them at one moment, and in words; local: workers on this machine.
"""
