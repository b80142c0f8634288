"""The pages of the site: where they are, and their HTML."""

from __future__ import annotations

from base64 import b64decode

from market import Property

LINKS_PER_PAGE = 30

PIXEL = b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")
"""The smallest GIF: every property's picture."""


def index_path(page: int) -> str:
    """Path of the index page with this number, counted from 0."""
    return f"/index_{page:05d}.html"


def property_path(number: int) -> str:
    """Path of the property with this number, counted from 0."""
    return f"/property_{number:06d}.html"


def index_pages(properties: int) -> int:
    """How many index pages so many properties make; an empty site has one as well."""
    return max(1, -(-properties // LINKS_PER_PAGE))


def render_property(item: Property) -> str:
    """The page of one property, marked up with schema.org's names."""
    return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{item.title}</title></head>
<body itemscope itemtype="http://schema.org/Product">
<h1 itemprop="name">{item.title}</h1>
<p class="price">£<span itemprop="price">{item.price:,.2f}</span> a month</p>
<p itemprop="description">{item.description}</p>
<p itemprop="address">{item.address}</p>
<img itemprop="image" src="{item.image}" alt="">
<p><a class="home" href="{index_path(0)}">All properties</a></p>
</body></html>
"""


def render_index(page: int, properties: int) -> str:
    """Index page ``page`` of a site with so many properties."""
    first = page * LINKS_PER_PAGE
    numbers = range(first, min(first + LINKS_PER_PAGE, properties))
    links = "\n".join(f'<li><a href="{property_path(n)}">Property {n}</a></li>' for n in numbers)
    last = page + 1 == index_pages(properties)
    following = "" if last else f'<a class="next" href="{index_path(page + 1)}">next</a>'
    return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>Properties, page {page}</title></head>
<body>
<ul class="properties">
{links}
</ul>
{following}
</body></html>
"""
