"""What travels must arrive: a worker refuses a batch as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from hostile import TRAP, Restless
from scrapy import Request

from scrapy_distributed.errors import NotSerializableError
from scrapy_distributed.wire.request import decode_requests, encode_request


class Needy(Request):
    """It can't be made from its attributes: ``page`` is not among them."""

    def __init__(self, *args: Any, page: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.page = page


class OwnClass(Request):
    """As a project has it."""


def test_a_request_that_can_not_be_made_again_does_not_travel() -> None:
    class Local(Request):
        """A worker does not have it before the callback that makes it has run."""

    class Script(Request):
        """Of the file that was started: on a worker that is another one."""

    Script.__qualname__, Script.__module__ = "Script", "__main__"
    for request, words in (
        (Needy("http://a/", page=1), "can't be made again: TypeError"),
        (Restless("http://a/"), "meta of a Restless would change"),
        (Local("http://a/"), "can't be found by its name on a worker"),
        (Script("http://a/"), "Script of __main__ can't be found"),
        (Request("http://a/?b", encoding="utf-16"), "url of a Request would change"),
    ):
        with pytest.raises(NotSerializableError, match=words):
            encode_request(request, TRAP)


def test_none_in_place_of_a_default_is_no_change() -> None:
    body = encode_request(OwnClass("http://a/", dont_filter=None), TRAP)  # type: ignore[arg-type]
    (arrived,) = decode_requests(f"[{body}]", TRAP)
    assert (type(arrived), arrived.dont_filter) == (OwnClass, False)


def test_a_method_that_is_empty_arrives_as_such() -> None:
    (arrived,) = decode_requests(f"[{encode_request(Request('http://a/', method=''), TRAP)}]", TRAP)
    assert arrived.method == ""


@pytest.mark.parametrize("cookies", ["a=b", 1, True])
def test_cookies_that_a_worker_would_refuse_do_not_travel(cookies: Any) -> None:
    with pytest.raises(NotSerializableError, match="cookies: found"):
        encode_request(Request("http://a/", cookies=cookies), TRAP)
