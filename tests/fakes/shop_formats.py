"""What the shop has besides its pages: JSON, forms, feeds, what requests say of themselves, and files.

=========================  ===========================================================================================
``/api/list/0``            as JSON: paths of products, and of the next list; ``/api/p/0``: a product. The same
                           by POST to ``/api`` with ``{"path": "/list/0"}``
``/search``                a form, which posts to ``/found``
``/sitemap.xml``           an index of two sitemaps with the products
``/feed.xml``              the products as XML; ``/table.csv``: as a table
``/said/0``                what the request has said in its headers
``/blob/0``                bytes
``/robots.txt``            forbids one product
=========================  ===========================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

PRODUCTS = 12
ON_A_LIST = 6
HEADERS = ("X-Own", "Accept", "Accept-Language", "User-Agent", "Referer", "Authorization")
FORM = """
<form method="post" action="/found"><input type="hidden" name="token" value="t0k"><input name="q"></form>
"""

Answer = tuple[str, bytes]  # kind of content, and content


def got(path: str, headers: Mapping[str, str]) -> Answer | None:
    """What a GET answers, ``None`` where there is nothing."""
    kind, _, rest = path[1:].partition("/")
    number = int(rest) if rest.isdigit() else 0
    site = f"http://{headers.get('Host')}"
    if kind == "api":
        return _json(_api(f"/{rest}"))
    if kind == "said":
        return _json({"path": path, **{name: headers.get(name) for name in HEADERS}})
    if kind == "blob":
        return "application/octet-stream", bytes(range(256)) * 4 + bytes([number])
    texts = {
        "search": ("text/html", FORM),
        "sitemap.xml": ("text/xml", _sitemaps(site)),
        "sitemap-0.xml": ("text/xml", _sitemap(site, 0)),
        "sitemap-1.xml": ("text/xml", _sitemap(site, 1)),
        "feed.xml": ("text/xml", _feed()),
        "table.csv": ("text/csv", _table()),
        "robots.txt": ("text/plain", "User-agent: *\nDisallow: /p/7\n"),
    }
    return (texts[kind][0], texts[kind][1].strip().encode()) if kind in texts else None


def posted(path: str, body: bytes) -> Answer | None:
    """What a POST of *body* answers, ``None`` where there is nothing."""
    if path == "/api":
        return _json(_api(json.loads(body)["path"]))
    if path == "/found":
        form = parse_qs(body.decode())
        return "text/html", f"<h1>{form['q'][0]} {form['token'][0]}</h1>".encode()
    return None


def _json(value: Any) -> Answer:
    return "application/json", json.dumps(value).encode()


def _api(path: str) -> dict[str, Any]:
    kind, _, number = path[1:].partition("/")
    if kind == "p":
        return {"number": int(number), "price": int(number) * 5}
    first = int(number) * ON_A_LIST
    more = f"/list/{int(number) + 1}" if first + ON_A_LIST < PRODUCTS else None
    return {"products": [f"/p/{one}" for one in range(first, first + ON_A_LIST)], "more": more}


def _sitemaps(site: str) -> str:
    maps = "".join(f"<sitemap><loc>{site}/sitemap-{number}.xml</loc></sitemap>" for number in range(2))
    return f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{maps}</sitemapindex>'


def _sitemap(site: str, number: int) -> str:
    urls = "".join(f"<url><loc>{site}/p/{one}</loc></url>" for one in range(number * 6, number * 6 + 6))
    return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'


def _feed() -> str:
    products = "".join(f'<product href="/p/{number}"/>' for number in range(PRODUCTS))
    return f"<products>{products}</products>"


def _table() -> str:
    return "href,kind\n" + "".join(f"/p/{number},{number % 2}\n" for number in range(PRODUCTS))
