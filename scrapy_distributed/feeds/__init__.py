"""What Scrapy's ``FeedExporter`` does, watched: of a worker, and of a coordinator to which the items come home.

feeds: is everything stored? place: can it be? appending: what an earlier command has written is cut off.
"""
