"""``scrapy worker``: a machine joins the shared runs of its project by being started.

work: how it is put together. claiming: what it does, batch after batch (one_batch: from its claim to its verdict;
own_job: the process that crawls it; watch: what does that do? reach: when Redis is away). bench: is this worker fit to
take any? own_folder: where its files are. health: how a supervisor sees that it lives.
"""
