"""The crawl that you start.

coordinator: the wiring. pages: Scrapy's hooks on what its spider yields. walk: its own pages. diversion: what those
yield for the fleet (sessions: with which cookies). discoveries: what workers have found. cutter: when a batch is cut
(open_batch: how full the open one is; batch_size: how large the next ones should be; slot_time: what the slots have
done, and what would help; chain: does each batch only hold what the one before has found?). homecoming: items that have
come home go into the feeds (home_pipelines: and before, through pipelines that run once; own_pages: each page brings
its items once; item_signal: who listens is told of them). own_feed: where workers have feeds, what is scraped here gets
one, too. keeper: what these two have in common. ending: when and why the crawl closes (curtain: how; closing: what that
means for its run; limits: as far as jobs reach them). exit_code: of the command. summary: what is said then. progress:
what is said before; showing: what other processes see. steering: what an operator wishes meanwhile. identity: which run
is this? arguments: those that its spider was given. nodes: what the fleet is made of (local_command: how this spider is
run on this machine; warm_start: so that its workers start sooner; own_scrapyd: where this crawl is a job itself).
refused: what it does not begin with.

Of a shared run, which workers join by themselves. shared_coordinator: the wiring. shared_hosts: where it is.
shared_entrance: how a coordinator comes to it, or waits as another one has it. shared_run: what was seen of it last,
and the loops that add to it (buffer: what is still to be added) and look at it. shared_harvest: items come home
(home_book: what is known of those that have; home_journal: where that is written; home_folder: who has the folder;
seen_here: keys that were seen on this machine), or go into a stream (into_stream). shared_ending: when and why the
crawl closes. shared_words: what is said. shared_figures: and how far it is. own_worker: one on this machine.
"""
