"""Scrapyd nodes without workers, for measuring a coordinator: jobs wait for a slot, run and end on a clock, and have
receipts as if every request of theirs were crawled. All in one process, each on a port of its own.

    python benchmarks/fake_fleet.py NODES SPIDER [SECONDS [SLOTS]]

SECONDS: that a job takes for a request (0); SLOTS: jobs that a node runs at once (2). Prints its addresses, one line.
When its standard input is closed it ends, and prints what it has served as JSON: *calls* by endpoint; *batches* of each
node; *last_posted* and *last_ended*: when the last job came, and when the last one was over, in seconds of the
machine's monotonic clock; *cpu* seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from scrapy_distributed.wire.payload import START_URL, decode_payload
from scrapy_distributed.wire.receipt import Receipt

RECEIPT_SECONDS = 2.0  # between two receipts of a job
REMEMBERED = 100  # finished jobs that a node counts
CONNECTIONS = 8  # that a coordinator may hold to a node, in open files


@dataclass(kw_only=True)
class Job:
    """*size* requests. Times are the clock's; *start* and *end* are infinite until a slot is free."""

    id: str
    project: str
    size: int
    posted: float
    start: float = float("inf")
    end: float = float("inf")
    signal: str = ""  # that has ended it

    def state(self, now: float) -> str:
        return "pending" if self.start > now else "running" if self.end > now else "finished"


class FakeNode:
    """One node that has any project, with *spider* alone. It runs *slots* jobs at once, in the order in which they
    came, for *seconds* a request by *clock*."""

    def __init__(
        self, spider: str, *, seconds: float = 0.0, slots: int = 2, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.spider = spider
        self.seconds = seconds
        self.clock = clock
        self.jobs: dict[str, Job] = {}
        self.calls: Counter[str] = Counter()
        self._waiting: deque[Job] = deque()
        self._free_at = [0.0] * slots  # a heap: when each slot is free

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        """Code and body for one request."""
        now = self.clock()
        self._advance(now)
        url = urlsplit(target)
        form = parse_qs(url.query or body.decode())
        endpoint = url.path.strip("/")
        if endpoint.startswith("logs"):
            self.calls["receipt"] += 1
            return self._file(unquote(endpoint).split("/"), now)
        self.calls[endpoint.removesuffix(".json")] += 1
        answers: dict[str, Callable[[], dict[str, object]]] = {
            "POST schedule.json": lambda: self._schedule(form, now),
            "POST cancel.json": lambda: self._cancel(form, now),
            "GET daemonstatus.json": lambda: self._daemonstatus(now),
            "GET status.json": lambda: {"currstate": self._state(form["job"][0], now)},
            "GET listjobs.json": lambda: self._listjobs(now),
            "GET listspiders.json": lambda: {"spiders": [self.spider]},
            "GET listversions.json": lambda: {"versions": ["1"]},
        }
        answer = answers.get(f"{method} {endpoint}")
        if answer is None:
            return 404, b"No Such Resource"
        return 200, json.dumps({"status": "ok", "node_name": "fake", **answer()}).encode()

    def _advance(self, now: float) -> None:
        """Start what had a slot by *now*."""
        while self._waiting and self._free_at[0] <= now:
            job = self._waiting.popleft()
            job.start = max(self._free_at[0], job.posted)
            job.end = job.start + job.size * self.seconds
            heapq.heapreplace(self._free_at, job.end)

    def _schedule(self, form: dict[str, list[str]], now: float) -> dict[str, object]:
        if form["spider"] != [self.spider]:
            return {"status": "error", "message": f"spider '{form['spider'][0]}' not found"}
        payload = next(value for value in form["setting"] if value.startswith(START_URL)).partition("=")[2]
        job = Job(id=form["jobid"][0], project=form["project"][0], size=len(decode_payload(payload)), posted=now)
        self.jobs[job.id] = job
        self._waiting.append(job)
        return {"jobid": job.id}

    def _cancel(self, form: dict[str, list[str]], now: float) -> dict[str, object]:
        state = self._state(form["job"][0], now)
        if state == "pending":
            self._waiting.remove(self.jobs.pop(form["job"][0]))
        elif state == "running":
            job = self.jobs[form["job"][0]]
            self._free_at[self._free_at.index(job.end)] = now
            heapq.heapify(self._free_at)
            job.end, job.signal = now, form.get("signal", ["INT"])[0]
        return {"prevstate": None if state == "finished" else state}

    def _daemonstatus(self, now: float) -> dict[str, object]:
        running = sum(free_at > now for free_at in self._free_at)
        finished = len(self.jobs) - len(self._waiting) - running
        return {"pending": len(self._waiting), "running": running, "finished": min(finished, REMEMBERED)}

    def _state(self, job: str, now: float) -> str | None:
        return self.jobs[job].state(now) if job in self.jobs else None

    def _listjobs(self, now: float) -> dict[str, object]:
        jobs: dict[str, list[dict[str, object]]] = {"pending": [], "running": [], "finished": []}
        for job in self.jobs.values():
            entry = {"id": job.id, "project": job.project, "spider": self.spider}
            jobs[job.state(now)].append(entry)
        return {**jobs, "finished": jobs["finished"][-REMEMBERED:]}

    def _file(self, path: list[str], now: float) -> tuple[int, bytes]:
        if path == ["logs"]:
            return 200, b"<html><head><title>Directory listing for /logs/</title></head></html>"
        job = self.jobs.get(path[-1].removesuffix(".json"))
        if job is None or job.start > now or path[1:-1] != [job.project, f"{self.spider}.receipts"]:
            return 404, b"File not found."
        return 200, self._receipt(job, min(now, job.end)).to_json().encode()

    def _receipt(self, job: Job, now: float) -> Receipt:
        """What *job* has written last, by *now*. Killed it writes no final one."""
        final = now >= job.end and job.signal != "KILL"
        written = int((now - job.start) / RECEIPT_SECONDS)
        time_at_work = now - job.start if final else written * RECEIPT_SECONDS
        done = (
            min(job.size, int(time_at_work / self.seconds)) if self.seconds and (job.signal or not final) else job.size
        )
        return Receipt(
            job=job.id, sequence=1 + written + final, final=final, size=job.size, settled=(1 << done) - 1, items=done,
            pages=done, activity=done, stored=final, finish_reason=("shutdown" if job.signal else "finished") * final,
        )  # fmt: skip


class Connection(asyncio.Protocol):
    """Requests of one client to *node*, one after the other."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            first, *headers = self._received[:end].decode("latin-1").split("\r\n")
            lengths = [int(line[15:]) for line in headers if line.lower().startswith("content-length:")]
            rest = end + 4 + sum(lengths)
            if len(self._received) < rest:
                return
            method, target, _ = first.split(" ")
            code, answer = self._node.answer(method, target, bytes(self._received[end + 4 : rest]))
            del self._received[:rest]
            self._transport.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (code, len(answer), answer))


def allow_open_files(needed: int) -> None:
    """Raise this process's limit of open files to *needed*, or end it with a sentence."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(f"at most {hard:,} files may be open (ulimit -Hn), expected {needed:,}: take fewer nodes")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))


async def main(count: int, spider: str, *, seconds: float, slots: int) -> None:
    """Serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    nodes = [FakeNode(spider, seconds=seconds, slots=slots) for _ in range(count)]
    servers = [await loop.create_server(lambda node=node: Connection(node), "127.0.0.1", 0) for node in nodes]
    print(",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    jobs = [job for node in nodes for job in node.jobs.values()]
    print(json.dumps({
        "calls": sum((node.calls for node in nodes), Counter()), "batches": [len(node.jobs) for node in nodes],
        "last_posted": max((job.posted for job in jobs), default=0.0),
        "last_ended": max((job.end for job in jobs), default=0.0), "cpu": time.process_time(),
    }))  # fmt: skip


if __name__ == "__main__":
    allow_open_files(100 + int(sys.argv[1]) * (1 + CONNECTIONS))
    options = dict(zip(("seconds", "slots"), (*sys.argv[3:], "0", "2")[:2], strict=True))
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], seconds=float(options["seconds"]), slots=int(options["slots"])))
