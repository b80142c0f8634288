"""What the nodes and the runs are doing.

node_state: one of the nodes, and in words (local: of the workers on this machine); run_state: a run, by its ledger and
what lies beside it; shared_state: shared runs, and those that work at them (worker_state: one of these); snapshot: all
of them at one moment; watch: again and again.
"""
