"""Who gets a batch, and what becomes of it.

dispatcher: sends, looks, takes back, ends. members: the nodes of a run, whose turn it is, which are trusted.
flight: an attempt under way, and its transitions. carrier: the seam to
what runs the jobs (scrapyd_carrier: a Scrapyd). leases: how long may a job be without a sign of life?
judge: does an attempt count, and who is to blame? job_template: what every job gets besides its batch.
"""
