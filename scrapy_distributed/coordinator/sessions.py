"""What the coordinator's jars would send with the requests that it diverts: read when one is diverted, and once more
when its batch is cut."""

from __future__ import annotations

from http.cookiejar import Cookie
from typing import Any

from scrapy import Request

from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.errors import TooLargeError
from scrapy_distributed.wire.session import Session, encode_session

REMEMBERED = 2_000  # sessions


class Sessions:
    """Makes sessions of what *jars* hold. Of the last ``REMEMBERED`` it knows what has become; any other goes as it was
    diverted, as do those of an earlier coordinator, whose jars are gone."""

    def __init__(self, jars: Jars) -> None:
        self.jars = jars
        self._by_cookies: dict[tuple[Any, ...], Session] = {}  # key of the jar, cookies: these are equal by identity
        self._cookies: dict[str, tuple[Any, tuple[Cookie, ...]]] = {}  # the same by id
        self._taken: dict[str, Session] = {}

    def of(self, request: Request) -> str | None:
        """The id of the session of *request*, ``None`` if nothing would be sent. Raises ``NotSerializableError`` and
        ``TooLargeError`` for cookies that can't travel."""
        cookies = self.jars.sent(request)
        if not cookies:
            return None
        session = self._session(request.meta.get("cookiejar"), cookies)
        self._taken[session.id] = session
        return session.id

    def taken(self) -> dict[str, Session]:
        """Those that ``of`` has given since the last call, by id; from now on jars may change."""
        self.jars.forget()
        taken, self._taken = self._taken, {}
        return taken

    def renewed(self, session: str) -> Session | None:
        """What has become of that *session*, if that is another: the same cookies as their jar has them now."""
        jar, cookies = self._cookies.get(session, (None, ()))
        now = tuple([self.jars.now(jar, cookie) for cookie in cookies])
        if now == cookies:
            return None
        try:
            return self._session(jar, now)
        except TooLargeError:
            return None

    def _session(self, jar: Any, cookies: tuple[Cookie, ...]) -> Session:
        key = (type(jar), jar, *cookies)
        session = self._by_cookies.get(key)
        if session is None:
            session = encode_session(jar, cookies)
            if len(self._by_cookies) >= REMEMBERED:
                oldest = self._by_cookies.pop(next(iter(self._by_cookies)))
                self._cookies.pop(oldest.id, None)
            self._by_cookies[key] = session
            self._cookies[session.id] = (jar, cookies)
        return session
