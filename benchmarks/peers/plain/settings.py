"""The example's settings without the plugin: one process crawls the whole site."""

BOT_NAME = "properties"
SPIDER_MODULES = ["properties.spiders"]
ROBOTSTXT_OBEY = False
TELNETCONSOLE_ENABLED = False
