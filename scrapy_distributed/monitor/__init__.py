"""What the nodes are doing.

node_state: one of them, and in words; snapshot: all of them at one moment; watch: again and again; local: workers on
this machine.
"""
