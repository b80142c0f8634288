"""What travels between the coordinator and its workers, and how it is written.

payload: batch <-> setting value, and the byte ceiling. request: request <-> JSON. session: the cookies that go with a
request. job: what a job may be called and hold. job_template: what every job of a run gets besides its batch. receipt:
what a worker reports of its attempt (receipt_file: where). hold: does its worker live? code: what a job runs, to be
compared. outcome: what a request has come to. reasons: why. bitmap: positions in a batch. ticket: what marks the
requests of a worker. seen_key: what stands for a request in the seen-set of a shared run.

values: the values in an item or a request <-> JSON, nested in one another. leaves: those that hold no others, and that
JSON does not know. classes: which ones they may be of, how they are found by their names, and filled.
"""
