"""scrapy-redis: all workers share one queue and one duplicate filter in Redis."""

BOT_NAME = "properties"
SPIDER_MODULES = ["redis_workers"]
ROBOTSTXT_OBEY = False
TELNETCONSOLE_ENABLED = False

SCHEDULER = "scrapy_redis.scheduler.Scheduler"
DUPEFILTER_CLASS = "scrapy_redis.dupefilter.RFPDupeFilter"
