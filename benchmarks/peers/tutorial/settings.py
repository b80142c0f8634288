"""The tutorial's design: rule 1 of the example's spider goes to Scrapyd nodes in batches."""

BOT_NAME = "tutorial"
SPIDER_MODULES = ["properties.spiders"]
ROBOTSTXT_OBEY = False
TELNETCONSOLE_ENABLED = False

SPIDER_MIDDLEWARES = {"tutorial.middleware.Distributed": 100}
TUTORIAL_RULE = 1
TUTORIAL_BATCH_SIZE = 1000
TUTORIAL_HOSTS = []
TUTORIAL_FEEDS = ""
TUTORIAL_WORKER_SETTINGS = {}
TUTORIAL_URLS = None
