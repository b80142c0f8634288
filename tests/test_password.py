"""Passwords of feed URLs: not shown, not logged, and not taken for one where a placeholder stands."""

from __future__ import annotations

import logging
import time

import pytest

from scrapy_distributed.password import (
    LOGGERS,
    has_password,
    hide_in_log,
    is_ambiguous,
    without_password,
    without_passwords,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://user:s3cret@host:21/a?b#c", "ftp://user@host:21/a?b#c"),
        ("ftp://user@host/a", "ftp://user@host/a"),
        ("ftp://:s3cret@host/a", "ftp://@host/a"),
        ("s3://k:s3cret/with@slash@b/a", None),
        ("ftp://user:s3@cret@host/a", "ftp://user@host/a"),
        ("ftp://user:s3:cret@[::1]:21/a", "ftp://user@[::1]:21/a"),
        ("/plain/path.jl", "/plain/path.jl"),
        ("file:///plain/path.jl", "file:///plain/path.jl"),
        ("ftp://user:s3cret@[host/a", None),
        ("ftp://user:12/s3cret@host/a", "ftp://host/a"),
        ("ftp://user:/s3cret@host/a", "ftp://host/a"),
        ("ftp://user:12?s3cret#s3cret@host/a", "ftp://host/a"),
        ("ftp://user:s3@cret/s3cret@host/a", "ftp://host/a"),
        ("ftp://us/er:s3cret@host/a", "ftp://host/a"),
        ("ftp:/user:s3cret@host/a", "host/a"),
        ("file:///plain/a:b@c.jl", "file:///plain/a:b@c.jl"),
    ],
)
def test_no_url_keeps_its_password(url: str, expected: str | None) -> None:
    shown = without_password(url)
    assert "s3cret" not in shown
    if expected is not None:
        assert shown == expected


def test_no_url_in_a_text_keeps_its_password() -> None:
    text = "{'FEED_URI': 'ftp://u:s3cret@h/1.jl',\n 'B': 's3://k:s3/cret@b/%(x)s'}, FTP://u:s3cret@h, u:p@h, http://h/"
    assert without_passwords(text) == (
        "{'FEED_URI': 'ftp://u@h/1.jl',\n 'B': 's3://b/%(x)s'}, ftp://u@h, u:p@h, http://h/"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("['ftp://u:s3cret@h/1','ftp://u:s3cret@h/2']", "['ftp://u@h/1','ftp://u@h/2']"),
        ('{"ftp://u:s3cret@h/1":{},"ftp://u:s3cret@h/2":{}}', '{"ftp://u@h/1":{},"ftp://u@h/2":{}}'),
        ('exception=OSError("no ftp://u:s3cret@h/1")>', 'exception=OSError("no ftp://u@h/1")>'),
        ("ftp://u:s3cret@h/1,ftp://u:s3cret@h/2", "ftp://h/2"),
        ("at ftp://u:a'b\"s3cret>s3cret@h/1", "at ftp://h/1"),
        ("ValueError: Port could not be cast to integer value as 's3cret'\nB",
         "ValueError: Port could not be cast to integer value as (hidden)\nB"),
    ],
)  # fmt: skip
def test_neighbours_of_a_url_hide_no_password(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


@pytest.mark.parametrize("text", ["a", "://", "a://", "a://:[@", "a-", ":", "a://'", "http://[://"])
def test_a_long_text_takes_a_time_in_proportion(text: str) -> None:
    start = time.process_time()
    without_passwords(text * 64_000)
    without_passwords(f"a://{text * 64_000}")
    assert time.process_time() - start < 5  # 0.1 s where it is so, minutes where it is not


@pytest.mark.parametrize(
    ("url", "ambiguous"),
    [
        ("ftp://u:s3cret/y@h/a", True), ("ftp://u:12/y@h/a", True), ("ftp://u:/y@h/a", True), ("ftp://u:a#b@h/a", True),
        ("ftp://u:a?b@h/a", True), ("ftp://u:a'b@h/a", True), ("ftp://u:a b@h/a", True), ("ftp://u:a[b@h/a", True),
        ("ftp://u:a@b/c@h/a", True), ("ftp://u/v:a@h/a", True), ("ftp://h:21/a@b.jl", True), ("ftp:/u:a@h/a", True),
        ("ftp://u:a%%2Fb%%40c@h:21/a", False), ("ftp://u:%(word)s@h:21/a", False), ("ftp://u:a@b@h/a", False),
        ("ftp://h:21/a%%40b.jl", False), ("ftp://h/a@b.jl", False), ("s3://b/a@b:c.jl", False), ("ftp://h:21/a", False),
        ("/items/a:b@c.jl", False), ("file:/items/a:b@c.jl", False), ("file:///a:b@c.jl", False), ("a@b.jl", False),
    ],
)  # fmt: skip
def test_where_a_password_can_be_told_from_a_path(url: str, ambiguous: bool) -> None:
    assert is_ambiguous(url) is ambiguous


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("ftp://u:p@h/%(batch)s.jl", True), ("ftp://u:p%(x)s@h/%(batch)s.jl", True), ("s3://k:a/b@h/%(batch)s", True),
        ("ftp://h:21/%(batch)s@x.jl", True),
        ("ftp://u:%(word)s@h/%(batch)s.jl", False), ("ftp://%(user)s:%(word)s@h:21/%(batch)s.jl", False),
        ("ftp://u@h/%(batch)s.jl", False), ("ftp://h:21/%(batch)s.jl", False), ("/items/%(batch)s.jl", False),
    ],
)  # fmt: skip
def test_a_placeholder_is_no_password(url: str, has: bool) -> None:
    assert has_password(url) is has


@pytest.mark.parametrize("name", LOGGERS)
def test_a_log_without_passwords(name: str, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger(name)
    before = list(log.filters)
    try:
        hide_in_log()
        hide_in_log()
        assert len(log.filters) == max(1, len(before))
        with caplog.at_level(logging.INFO):
            log.info("Stored %s, 100%% of it", "jl feed (3 items) in: ftp://u:s3cret@h/%20.jl")
            try:
                raise OSError("no place at ftp://u:s3cret@h/1.jl")
            except OSError:
                log.exception("Error storing %s", "ftp://u:s3cret@h/1.jl")
    finally:
        log.filters[:] = before
    assert caplog.messages == [
        "Stored jl feed (3 items) in: ftp://u@h/%20.jl, 100% of it",
        "Error storing ftp://u@h/1.jl",
    ]
    assert "OSError: no place at ftp://u@h/1.jl" in caplog.text
    assert "s3cret" not in caplog.text
