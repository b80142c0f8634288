"""Starts jobs on this machine, watches and ends them.

``agent`` has as many at once as there are slots, and ``job_files`` what they write.
``warm_process`` is a process that has imported Scrapy and forks jobs, as whoever starts it sees it, and ``forked_job``
a job of it; ``fork_server`` is what runs in it, ``job_process`` what a job begins with. ``post_mortem`` tells from what
a job has left why it ended. Nothing is imported here: some of these must not have a reactor.
"""
