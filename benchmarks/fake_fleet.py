"""Scrapyd nodes without workers, for measuring a coordinator: a job is finished, every request of it crawled, as soon
as its receipt is asked for. Prints its addresses, one line; ends with its standard input.

    python benchmarks/fake_fleet.py NODES SPIDER
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import parse_qsl, urlsplit

from scrapy_distributed.receipt import Receipt
from scrapy_distributed.wire import START_URL, decode_payload


class FakeNode:
    """One node: the answers of Scrapyd that a coordinator asks for. Jobs by id, with their number of requests."""

    def __init__(self, spider: str) -> None:
        self.spider = spider
        self.jobs: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                length = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                code, answer = self.answer(urlsplit(lines[0].split(" ")[1]).path, body)
                writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (code, len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/schedule.json":
            form = parse_qsl(body.decode())
            payload = next(value for key, value in form if key == "setting" and value.startswith(START_URL))
            job = dict(form)["jobid"]
            self.jobs[job] = len(decode_payload(payload.partition("=")[2]))
            return ok(jobid=job)
        if path == "/daemonstatus.json":
            return ok(pending=0, running=0, finished=len(self.jobs))
        if path == "/listspiders.json":
            return ok(spiders=[self.spider])
        if path == "/listversions.json":
            return ok(versions=["1"])
        if path == "/logs/":
            return 200, b"logs"
        job = path.rpartition("/")[2].removesuffix(".json")
        if path.startswith("/logs/") and job in self.jobs:
            size = self.jobs[job]
            receipt = Receipt(
                job=job, sequence=1, final=True, size=size, settled=(1 << size) - 1, items=size, stored=True,
                finish_reason="finished",
            )  # fmt: skip
            return 200, receipt.to_json().encode()
        return 404, b"not found"


def ok(**values: object) -> tuple[int, bytes]:
    return 200, json.dumps({"status": "ok", "node_name": "fake", **values}).encode()


async def main(nodes: int, spider: str) -> None:
    """Serve until standard input is closed."""
    servers = [await asyncio.start_server(FakeNode(spider).serve, "127.0.0.1", 0) for _ in range(nodes)]
    print(",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
