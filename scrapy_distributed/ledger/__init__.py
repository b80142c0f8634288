"""What is known of a run.

states: of a batch and its attempts, and which follows which. rules: may a receipt count, and what follows for its
batch? balance: every request is in one state. sums: what many jobs report, in few names. sqlite: the ledger in a file,
in facets: sqlite_intake (what comes in, each once, until it is in batches; finds: from workers), sqlite_bookings (what
goes where), sqlite_verdicts (what becomes of it), sqlite_harvest (which items come home), sqlite_account (how the run
stands), sqlite_control (what an operator wishes). Below them sqlite_batches (steps of several), sqlite_store
(connection and transaction), sqlite_seen (which keys are known), sqlite_schema (the tables). wishes: what operators
wish of a crawl that runs (wanted: which requests they mean; answer: what comes of it); board: what it shows of itself
meanwhile (count: how far it is). reader: what is shown of a run, also while it goes on (records; any_reader: the same
of one that is not in a file). spooled: which files should be in the spool.
"""
