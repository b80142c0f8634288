"""What travels between the coordinator and its workers, and how it is written.

payload: batch <-> setting value, and the byte ceiling. request: request <-> JSON. job: what a job may be called and
hold. receipt: what a worker reports of its attempt. outcome: what a request has come to. reasons: why. bitmap:
positions in a batch. ticket: what marks the requests of a worker.
"""
