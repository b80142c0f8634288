"""Who gets a batch, and what becomes of it.

dispatcher: which node gets it, and when is that looked at? (members: the nodes of a run, and whose turn it is; pause:
the one between two looks, and what ends it; handover: could another node start sooner what one has?)
supervisor: what does its job do? (flight: an attempt under way, and its transitions; leases: how long may a job be
without a sign of life, when is it given up? eggs: is what it runs the code here?) judge: does it count, and who is to
blame? (harvest: its items are brought home before; room: is there any for them? start_fault: can any job start?)
carrier: the seam to what runs the jobs (scrapyd_carrier: a Scrapyd; local_carrier: this machine; sources: has their
code changed? tracebacks: what has gone wrong in them). job_template: what every job gets besides its batch.
"""
