"""The quick start of the README, as a reader does it: a new project, a spider, three lines of settings, one command."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from scrapy_command import scrapy

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SITE = "https://books.toscrape.com"
LISTS, ON_A_LIST = 2, 3
"""Few, as a new project asks for one page a second."""


class Books:
    """A site like the README's, served by a thread of the test. *visits*: how often each path was asked for."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.visits: Counter[str] = Counter()

    def page(self, path: str) -> str | None:
        self.visits[path] += 1
        kind, _, rest = path[1:].partition("/")
        if kind == "book":
            return f'<h1>Book {rest}</h1><p class="price_color">£{rest}.50</p>'
        if kind not in ("", "list"):
            return None
        number = int(rest or 0)
        books = "".join(f'<h3><a href="/book/{number * ON_A_LIST + one}">a</a></h3>' for one in range(ON_A_LIST))
        return books + (f'<li class="next"><a href="/list/{number + 1}">next</a></li>' if number + 1 < LISTS else "")

    @property
    def items(self) -> list[dict[str, str]]:
        """What there is to scrape."""
        numbers = range(LISTS * ON_A_LIST)
        return [{"url": f"{self.url}/book/{n}", "title": f"Book {n}", "price": f"£{n}.50"} for n in numbers]


@contextmanager
def serving() -> Iterator[Books]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = books.page(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        books = Books(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield books
        finally:
            server.shutdown()
            thread.join()


class Reader:
    """Does what the README says in *folder*, and crawls the site at *url* in place of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.log = ""

    def follow(self, text: str) -> None:
        """Each block of *text*: commands are given, and a file that the text before a block names gets it at its
        end."""
        for before, language, block in re.findall(r"(.*?)```(\w+)\n(.*?)```", text, re.DOTALL):
            if language == "sh":
                for line in block.splitlines():
                    self.command(*shlex.split(line, comments=True))
            else:
                (name,) = re.findall(r"`(\w+/[\w/]+\.py)`", before)
                with (self.folder / name).open("a") as file:
                    file.write(block.replace(SITE, self.url))

    def command(self, program: str, *args: str) -> None:
        if program == "cd":
            self.folder /= args[0]
        elif program == "scrapy":
            command = scrapy(self.folder, *args)
            self.log += command.stdout + command.stderr
            assert command.returncode == 0, self.log
        else:
            assert (program, args) == ("pip", ("install", "scrapy-distributed-batches"))


@pytest.fixture
def quick_start() -> str:
    """Up to the second step, for which there is no Scrapyd."""
    text, found, _ = README.partition("## Quick start\n")[2].partition("The second step")
    assert found
    return text


def test_who_follows_it_has_all_items_of_workers_on_this_machine(quick_start: str, tmp_path: Path) -> None:
    with serving() as books:
        reader = Reader(tmp_path, books.url)
        reader.follow(quick_start)
    items = [json.loads(line) for line in (reader.folder / "books.jl").read_text(encoding="utf-8").splitlines()]
    assert sorted(items, key=lambda item: item["url"]) == books.items
    assert {books.visits[f"/book/{number}"] for number in range(LISTS * ON_A_LIST)} == {1}
    assert f"'distributed/crawled': {len(books.items)}" in reader.log
    assert "'distributed/attempts/local': " in reader.log
    assert "settled" in reader.log.splitlines()[-1]
