"""A run that lives in Redis or Valkey: coordinators add requests to it, and workers join by being started.

address: where the server is (tls: and who we are there). server: its connections; scripts: its transitions, one Lua
script each, which it applies as a whole or not at all (library: how they are put together). keys: the names of the
keys. portion: many requests as few bytes. finds: requests that may be new, as they are told to the server. run_rules:
what holds for the jobs of a run. intake: for coordinators; what is found, each once, and how far the walk is. claims:
for workers; batches, their leases and verdicts (attempts: applied if nothing has changed meanwhile; steps: what they
change, pure). account: how a run stands, and what is told of it. harvest: what accepted attempts have brought, in
order, and the stream with it. control: what an operator wishes (retrying: what has come to nothing, once more). checks:
is a server fit for runs? code_version: which code has a run, a worker? refusal: which settings of a run are not taken
from the queue? pace: how many requests at once?
"""
