"""A Scrapy project for the end-to-end tests, deployed to real nodes together with the example's own package."""
