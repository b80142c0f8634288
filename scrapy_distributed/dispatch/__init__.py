"""Who gets a batch, and what becomes of it.

dispatcher: sends, looks, takes back, ends. members: the nodes of a run, whose turn it is, which are trusted.
judge: does an attempt count, and who is to blame? job_template: what every job gets besides its batch.
"""
