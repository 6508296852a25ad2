"""A light load client, in a process of its own: raw HTTP/1.1 on uvloop, requests built beforehand.

Closed loop: every connection sends its next request when the answer is in. Open loop: the times of
all requests are fixed beforehand and a thread keeps them; a request that finds no free connection
waits for one, and its latency counts from the time it should have been sent.

`python -m tests.bench.load` reads one `Load` as JSON from standard input and writes one `Result`.
Everything ends by itself: after `seconds`, after `most` requests, and a grace at the end.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, cast

import msgspec
import uvloop

from tests.bench.nodes import NodeConnection, Nodes

__all__ = ["NUMBER", "Load", "Result", "Workers", "percentile", "post", "run_load"]

HOST: Final = "127.0.0.1"
GRACE_S: Final = 3.0
"""Seconds the last answers, and the last leases, may take."""

NUMBER: Final = b"#########"
"""Where it stands in a request, each request gets its own number of nine digits."""

_NUMBERED: Final = re.compile(rb'"n"\s*:\s*"(\d{9})"')
_TWO: Final = ord("2")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Workers(msgspec.Struct, frozen=True):
    """Connections that ask for tasks all the time, and note when each number arrives."""

    requests: list[bytes]


class Load(msgspec.Struct, frozen=True):
    """What to send, and how.

    Attributes:
        rate: Requests a second for the open loop; None for the closed loop.
        warm_up_s: Seconds at the start that do not count.
        most: Requests at most.
        workers: Long-polling workers beside the senders; a request's number links the two.
        nodes: OctoHub nodes beside the senders; then what counts is tasks done.
    """

    port: int
    request: bytes
    connections: int = 64
    seconds: float = 3.0
    warm_up_s: float = 0.5
    most: int = 5_000_000
    rate: float | None = None
    workers: Workers | None = None
    nodes: Nodes | None = None


class Result(msgspec.Struct):
    """What came of a load. Times in milliseconds, rate a second, after the warm-up.

    Attributes:
        total: Answers in all, warm-up included; the server's CPU time is divided by it.
        late_p99_ms: How late the client itself sent (open loop): the error of its clock.
        leased_p50_ms: From the intended send to the arrival of the task at a worker.
        unleased: Tasks that were sent and reached no worker in time.
    """

    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    total: int = 0
    errors: int = 0
    statuses: dict[str, int] = {}
    late_p99_ms: float = 0.0
    leased: int = 0
    leased_p50_ms: float = 0.0
    leased_p99_ms: float = 0.0
    unleased: int = 0
    sample: str = ""


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return a POST request with a JSON body, ready to be written."""
    return _request("POST", path, body, headers or {})


def get(path: str, headers: dict[str, str] | None = None) -> bytes:
    """Return a GET request, ready to be written."""
    return _request("GET", path, b"", headers or {})


def _request(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all values does not exceed; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(slots=True)
class _Notes:
    """What is noted while a load runs."""

    statuses: Counter[bytes] = field(default_factory=Counter[bytes])
    total: int = 0
    done: int = 0
    counted: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list[float])
    late: list[float] = field(default_factory=list[float])
    leased: list[float] = field(default_factory=list[float])
    intended: dict[int, float] = field(default_factory=dict[int, float])
    sample: bytes = b""


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self._buffer = b""
        self._head = b"none yet"
        self._needs = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def send(self, request: bytes) -> None:
        assert self.transport is not None
        self.busy = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not data.startswith(self._head) and not self._read_head(data):
            self._buffer = data
            return
        if len(data) < self._needs:
            self._buffer = data
            return
        self.busy = False
        self.answered(data)

    def _read_head(self, data: bytes) -> bool:
        """Learn how long an answer with this head is: most answers have the same one."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(data, 0, end + 2)
        self._head = data[: end + 4]
        self._needs = end + 4 + (int(length[1]) if length else 0)
        return True

    def answered(self, data: bytes) -> None:
        """One whole answer is in."""
        raise NotImplementedError


class _Sender(_Connection):
    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run
        self.began = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._run.failed(self)

    def answered(self, data: bytes) -> None:
        self._run.answered(self, data)


class _Worker(_Connection):
    def __init__(self, run: _Run, request: bytes) -> None:
        super().__init__()
        self._run = run
        self._request = request

    def poll(self) -> None:
        self.send(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.over:
            self._run.notes.errors += 1

    def answered(self, data: bytes) -> None:
        now = perf_counter()
        run = self._run
        if data[9:12] != b"200":
            run.notes.errors += 1
            run.notes.statuses[b"worker " + data[9:12]] += 1
            run.notes.sample = run.notes.sample or data
            return  # this worker stops: no hammering with what is refused
        for found in _NUMBERED.finditer(data):
            intended = run.notes.intended.pop(int(found[1]), None)
            if intended is not None:
                run.notes.leased.append(now - intended)
        if not run.over:
            self.poll()


class _Run:
    """One load, on one loop."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.notes = _Notes()
        self.over = False
        self._sent = 0
        self._begin = 0.0
        self._count_from = 0.0
        self._until = 0.0
        self._last = 0.0
        self._free: deque[_Sender] = deque()
        self._queue: deque[tuple[float, int]] = deque()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._all = asyncio.Event()
        self._numbered = NUMBER in load.request
        self._parked: deque[_Sender] = deque()

    async def go(self) -> Result:
        """Connect, send, wait for what is under way, and tell."""
        loop = asyncio.get_running_loop()
        load = self.load
        workers = [
            (await loop.create_connection(lambda r=request: _Worker(self, r), HOST, load.port))[1]  # type: ignore[misc]
            for request in (load.workers.requests if load.workers else [])
        ]
        nodes = await self._connect_nodes(loop)
        senders = [
            (await loop.create_connection(lambda: _Sender(self), HOST, load.port))[1]
            for _ in range(load.connections)
        ]
        for worker in workers:
            worker.poll()
        self._begin = self._last = perf_counter()
        self._count_from = self._begin + load.warm_up_s
        self._until = self._count_from + load.seconds
        if load.rate is None:
            for sender in senders:
                self._next(sender)
        else:
            self._free.extend(senders)
            pace = threading.Thread(target=self._pace, args=(loop, load.rate), daemon=True)
            pace.start()
        try:
            async with asyncio.timeout(load.warm_up_s + load.seconds):
                await self._all.wait()
        except TimeoutError:
            pass
        await self._finish(bool(workers or nodes))
        self.over = True
        self.notes.errors += self._under_way + len(self._queue)
        for node in nodes:
            node.closing = True
            if node.transport is not None:
                node.transport.abort()
        for connection in (*senders, *workers):
            if connection.transport is not None:
                connection.transport.abort()
        return self._result()

    async def _connect_nodes(self, loop: asyncio.AbstractEventLoop) -> list[NodeConnection]:
        """Connect all nodes, and wait until they have been greeted."""
        wanted = self.load.nodes
        if wanted is None:
            return []
        nodes: list[NodeConnection] = []
        for number in range(wanted.count):
            node = NodeConnection(number, wanted.concurrency, self._done)
            await loop.create_connection(lambda node=node: node, HOST, self.load.port)  # type: ignore[misc]
            await node.ready
            nodes.append(node)
        return nodes

    def _done(self, task: bytes) -> None:
        """A node was given a task, and has answered; `lost`: it was closed."""
        now = perf_counter()
        notes = self.notes
        if task == b"lost":
            notes.errors += 1
            return
        notes.done += 1
        if self._count_from <= now <= self._until:
            notes.counted += 1
        for found in _NUMBERED.finditer(task):
            intended = notes.intended.pop(int(found[1]), None)
            if intended is not None:
                notes.leased.append(now - intended)
        while self._parked and not self._enough_waits():
            self._next(self._parked.popleft())

    def _enough_waits(self) -> bool:
        nodes = self.load.nodes
        if nodes is None or self.load.rate is not None:
            return False
        return self._sent * nodes.per_request - self.notes.done >= nodes.most_waiting

    async def _finish(self, leases: bool) -> None:
        try:
            async with asyncio.timeout(GRACE_S):
                while self._under_way or self._queue:
                    self._idle.clear()
                    await self._idle.wait()
                while leases and self.notes.intended:  # noqa: ASYNC110  # the end, once
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass

    def _pace(self, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        """Wake the loop when requests are due; on a thread, for the loop counts in milliseconds."""
        step = 1.0 / rate
        number = 0
        total = min(self.load.most, int((self.load.warm_up_s + self.load.seconds) * rate))
        while number < total:
            due = self._begin + number * step
            wait = due - perf_counter()
            if wait > 0:
                time.sleep(wait)
            count = min(total, int((perf_counter() - self._begin) / step) + 1) - number
            if count > 0:
                loop.call_soon_threadsafe(self._due, number, count, step)
                number += count

    def _due(self, first: int, count: int, step: float) -> None:
        if self.over:
            return
        now = perf_counter()
        for number in range(first, first + count):
            intended = self._begin + number * step
            if intended >= self._count_from:
                self.notes.late.append(now - intended)
            if self._free:
                self._send(self._free.popleft(), intended, number)
            else:
                self._queue.append((intended, number))

    def _next(self, sender: _Sender) -> None:
        now = perf_counter()
        if now < self._until and self._sent < self.load.most:
            if self._enough_waits():
                self._parked.append(sender)
            else:
                self._send(sender, now, self._sent)

    def _send(self, sender: _Sender, intended: float, number: int) -> None:
        request = self.load.request
        if self._numbered:
            request = request.replace(NUMBER, b"%09d" % number)
            if (self.load.workers or self.load.nodes) is not None and intended >= self._count_from:
                self.notes.intended[number] = intended
        self._sent += 1
        self._under_way += 1
        sender.began = intended
        sender.send(request)

    def answered(self, sender: _Sender, data: bytes) -> None:
        now = perf_counter()
        notes = self.notes
        self._under_way -= 1
        notes.total += 1
        status = data[9:12]
        notes.statuses[status] += 1
        if status[0] != _TWO and not notes.sample:
            notes.sample = data
        counted = sender.began if self.load.rate is not None else now
        if self._count_from <= counted <= self._until:
            notes.latencies.append(now - sender.began)
            self._last = now
        if self.load.rate is None:
            self._next(sender)
        elif self._queue:
            self._send(sender, *self._queue.popleft())
        else:
            self._free.append(sender)
        if not self._under_way:
            self._idle.set()
            if self._sent >= self.load.most:
                self._all.set()

    def failed(self, sender: _Sender) -> None:
        """A connection broke with a request under way; it is not opened again."""
        if self.over:
            return
        self._under_way -= 1
        self.notes.errors += 1
        if not self._under_way:
            self._idle.set()

    def _result(self) -> Result:
        notes = self.notes
        took = max(1e-6, self._last - self._count_from)
        rate, total = len(notes.latencies) / took, notes.total
        if self.load.nodes is not None and self.load.rate is None:
            rate, total = notes.counted / self.load.seconds, notes.done
        return Result(
            rate=rate,
            p50_ms=percentile(notes.latencies, 0.5) * 1000,
            p99_ms=percentile(notes.latencies, 0.99) * 1000,
            total=total,
            errors=notes.errors,
            statuses={status.decode(): count for status, count in notes.statuses.items()},
            late_p99_ms=percentile(notes.late, 0.99) * 1000,
            leased=len(notes.leased),
            leased_p50_ms=percentile(notes.leased, 0.5) * 1000,
            leased_p99_ms=percentile(notes.leased, 0.99) * 1000,
            unleased=len(notes.intended),
            sample=notes.sample.decode(errors="replace"),
        )


def run_load(load: Load) -> Result:
    """Run a load in a process of its own, and wait for it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=msgspec.json.encode(load),
        stdout=subprocess.PIPE,
        timeout=load.warm_up_s + load.seconds + GRACE_S + 20.0,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Result)


def main() -> None:
    """Run the load that standard input holds."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)

    async def run() -> Result:
        return await _Run(load).go()

    result = uvloop.run(run())
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
