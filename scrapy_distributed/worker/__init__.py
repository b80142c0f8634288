"""The same spider, one batch. Neither treq nor SQLite is imported here.

worker: Scrapy's hooks. sessions: the cookies that its batch has. reporter: claim, heartbeat, final receipt. outcomes:
what has become of its requests. example: what the first error of a kind said. targets: what it finds for the fleet.
items_file: the items that come home. strays: requests that no page has yielded. errbacks: those that fail.
process_age: since when it runs. first_delay: others may have asked a moment before. its_node: what its Scrapyd has told
it. parent: is there still who has started it?
"""
