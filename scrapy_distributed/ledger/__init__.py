"""What is known of a run.

states: of a batch and its attempts. rules: what a verdict means for a batch. balance: every request is in one state.
sums: what many jobs report, in few names. sqlite: the store (sqlite_schema: its tables; sqlite_seen: which keys are
known). reader: what is shown of it (records).
"""
