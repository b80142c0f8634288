"""The part of the shop that needs a log-in, by cookies.

=======================  =============================================================================================
``/members``             a form to log in, and the cookies of a guest
``/members/orders/0``    links to six orders each, and to the next page; for members
``/members/order/0`` ..  an order; for members; sets a cookie for its invoice, and links to that and to the next order
``/members/invoice/0``   of an order; for who comes from there; by way of a redirect
=======================  =============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.cookies import SimpleCookie
from itertools import count

ORDERS = 12
ON_A_PAGE = 6
MEMBERS = ("ann", "ben")
GUEST = "please log in"
Answer = tuple[int, str, Sequence[tuple[str, str]]]
_logged_in = count()


def page(path: str, header: str) -> Answer:
    """*header*: the cookies."""
    cookies = {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    member = cookies.get("sid", "").rpartition("-")[0]
    kind, _, rest = path.removeprefix("/members").strip("/").partition("/")
    number = int(rest) if rest.isdigit() else 0
    if not kind:
        return 200, _form(), [("Set-Cookie", "sid=guest-0; Path=/members"), ("Set-Cookie", "currency=eur; Path=/")]
    if member not in MEMBERS:
        return 200, f"<h1>{GUEST}</h1>", []
    if kind == "orders":
        return 200, _orders(number), [("Set-Cookie", f"page={number}; Path=/members/orders; Max-Age=600")]
    if kind == "order":
        return 200, _order(number, member, cookies), [
            ("Set-Cookie", f"paper={member}{number}; Path=/members/invoice/{number}; HttpOnly"),
            ("Set-Cookie", f"paper={member}{number}; Path=/members/paper/{number}"),
        ]  # fmt: skip
    if kind == "invoice":
        return 302, "", [("Location", f"/members/paper/{number}")]
    return 200, f"<h1>Paper {cookies.get('paper')}</h1>", []


def log_in(form: Mapping[str, list[str]], header: str) -> Answer:
    """Each time with another id."""
    (token,), (user,) = form.get("token", [""]), form.get("user", [""])
    if token != "t" or user not in MEMBERS or "sid=guest" not in header:
        return 403, "no", []
    return 302, "", [
        ("Set-Cookie", f"sid={user}-{next(_logged_in)}; Path=/members; HttpOnly; Max-Age=3600"),
        ("Set-Cookie", "tier=gold; Path=/members/order"),
        ("Set-Cookie", "hidden=1; Path=/members; Secure"),
        ("Location", "/members/orders/0"),
    ]  # fmt: skip


def _form() -> str:
    return (
        '<form action="/members" method="post"><input name="user"><input type="hidden" name="token" value="t"></form>'
    )


def _orders(number: int) -> str:
    first = number * ON_A_PAGE
    more = f'<a class="next" href="/members/orders/{number + 1}">more</a>' if first + ON_A_PAGE < ORDERS else ""
    return more + "".join(f'<a class="order" href="/members/order/{one}">{one}</a>' for one in range(first, first + 6))


def _order(number: int, member: str, cookies: Mapping[str, str]) -> str:
    after = f'<a class="after" href="/members/order/{number + 1}">next</a>' if number + 1 < ORDERS else ""
    said = ",".join(f"{name}={cookies[name]}" for name in ("currency", "tier", "hidden", "page") if name in cookies)
    return (
        f'<h1>Order {number} of {member}</h1><b>{said}</b><a class="invoice" href="/members/invoice/{number}">paper</a>'
        f"{after}"
    )
