"""Spiders of the shop, whose items come home.

kinds: each yields items of another kind. models: those of pydantic. pages: each finds its way to them otherwise.
told: the arguments and settings of its command are in its items. handlers: some requests come out of no page.
travellers: what their requests hold. troubles: something is wrong with some of their pages or items.
parts: pipelines, filters, storages.
"""
