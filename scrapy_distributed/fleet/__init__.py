"""The nodes, with or without a run.

addresses: where they are, and who may use them. local_slots: how many workers are on this machine. node: one Scrapyd
over HTTP (connection: within limits; answer: in words). trust: is it used, in doubt, left out? pace: how many jobs does
it run? preflight: can they be used? (roll_call: as many as answer). deploy, egg, needs, versions, version_name, stock:
the project on them. cancel: the jobs of a run on them, ended. local_node, local_scrapyd, local_credentials:
Scrapyds of this machine.
"""
