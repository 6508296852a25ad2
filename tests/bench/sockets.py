"""A light WebSocket client, in a process of its own: publishers, subscribers, and idle ones.

A message is there when its publisher has `accepted` and every subscriber of its subject has the
envelope. Frames are built beforehand and read by their length alone; all masks are zero, which
RFC 6455 allows and costs the client nothing. Loops are closed or open as in `load.py`.

`python -m tests.bench.sockets` reads one `StreamLoad` as JSON, a line, from standard input; says
`connected`; at the next line begins; writes one `Result`; and at the third line hangs up.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Final, cast

import msgspec
import uvloop

from tests.bench.load import GRACE_S, HOST, NUMBER, Result, percentile

__all__ = ["StreamLoad", "frame", "raise_file_limit"]

HANDSHAKE_S: Final = 240.0
AT_ONCE: Final = 200
"""Handshakes under way at once."""

_NOBODY: Final = 99_999
"""Place of a connection that wants nothing."""

_PLACE: Final = b"@@@@@"
_ENVELOPE: Final = b'{"type":"e'
_ACCEPTED: Final = b'{"type":"a'
_ENVELOPE_NUMBER: Final = re.compile(rb'"n":"(\d{9})"')
_ACCEPTED_NUMBER: Final = re.compile(rb'"ref":"(\d{9})"')
_SHORT: Final = 125
_MEDIUM: Final = 126
_TEXT_FRAME: Final = 0x81
_PING_FRAME: Final = 0x89
_PONG_FRAME: Final = 0x8A


class StreamLoad(msgspec.Struct, frozen=True):
    """What to send, and how.

    Attributes:
        path: With its query; `@@@@@` in it and in `text` is the number of the pair.
        text: The frame a publisher sends; `NUMBER` in it is the number of the message.
        pairs: Publishers; each has subscribers of its own.
        fan: Subscribers of each publisher.
        window: Messages of one publisher under way at once (closed loop).
        rate: Messages a second for the open loop; None for the closed loop.
        idle: No publisher at all: so many connections that say nothing.
    """

    port: int
    path: str
    text: bytes = b""
    headers: dict[str, str] = {}
    pairs: int = 64
    fan: int = 1
    window: int = 1
    seconds: float = 3.0
    warm_up_s: float = 0.5
    rate: float | None = None
    idle: int = 0


def frame(text: bytes) -> bytes:
    """Return a text frame of a client, under a mask of zeros."""
    size = len(text)
    if size <= _SHORT:
        head = bytes((_TEXT_FRAME, 0x80 | size))
    else:
        head = bytes((_TEXT_FRAME, 0x80 | _MEDIUM)) + size.to_bytes(2, "big")
    return head + bytes(4) + text


def raise_file_limit() -> None:
    """Allow as many open sockets as the machine gives; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class _Left:
    """What is still to come of one message."""

    parts: int
    place: int
    began: float


class _Client(asyncio.Protocol):
    """One connection; `heard` is called with each text."""

    def __init__(self, run: _Run, place: int) -> None:
        self.place = place
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        load = self._run.load
        path = load.path.replace(_PLACE.decode(), f"{self.place:05d}")
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", "Upgrade: websocket",
                 "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
        lines += [f"{name}: {value}" for name, value in load.headers.items()]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.open.done():
            said = f"{exc!r} {self._run.sample[:200]!r}"
            self.open.set_exception(ConnectionError(f"closed before it was open: {said}"))
        if not self._run.over:
            self._run.errors += 1

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._run.sample = self._run.sample or data
                self.abort()
                return
            self._upgraded = True
            data = data[end + 4 :]
        at, length = 0, len(data)
        while length - at >= 2:
            size, start = data[at + 1], at + 2
            if size == _MEDIUM:
                if length - at < 4:
                    break
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if start + size > length:
                break
            opcode, at = data[at], start + size
            if opcode == _TEXT_FRAME:
                self._heard(data[start:at])
            elif opcode == _PING_FRAME:
                pong = bytes((_PONG_FRAME, 0x80 | size)) + bytes(4)
                self.send(pong + data[start:at])
        self._buffer = data[at:]

    def _heard(self, text: bytes) -> None:
        if text.startswith(_ENVELOPE):
            found = _ENVELOPE_NUMBER.search(text)
        elif text.startswith(_ACCEPTED):
            found = _ACCEPTED_NUMBER.search(text)
        elif not self.open.done() and text.startswith(b'{"type":"hello"'):
            self.open.set_result(None)
            return
        else:
            self._run.errors += 1
            self._run.sample = self._run.sample or text
            return
        assert found is not None, text
        self._run.part(int(found[1]))


class _Run:
    """One load, on one loop."""

    def __init__(self, load: StreamLoad) -> None:
        self.load = load
        self.over = False
        self.errors = 0
        self.sample = b""
        self._text = [
            frame(load.text.replace(_PLACE, b"%05d" % place)) for place in range(load.pairs)
        ]
        self._publishers: list[_Client] = []
        self._left: dict[int, _Left] = {}
        self._sent = 0
        self._total = 0
        self._latencies: list[float] = []
        self._late: list[float] = []
        self._begin = self._count_from = self._until = self._last = 0.0
        self._idle = asyncio.Event()

    async def go(self) -> None:
        """Connect, send, wait for what is under way, and tell."""
        load = self.load
        if load.idle:
            clients = await self._connect(range(load.idle))
        else:
            listening = [place for place in range(load.pairs) for _ in range(load.fan)]
            clients = await self._connect(listening)
            self._publishers = await self._connect([_NOBODY] * load.pairs)
            clients += self._publishers
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if not load.idle:
            await self._measure()
        self.errors += len(self._left)
        print(msgspec.json.encode(self._result()).decode(), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        self.over = True
        for client in clients:
            client.abort()

    async def _connect(self, places: range | list[int]) -> list[_Client]:
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(place: int) -> _Client:
            async with gate:
                client = (
                    await loop.create_connection(lambda: _Client(self, place), HOST, self.load.port)
                )[1]
                await client.open
                return client

        async with asyncio.timeout(HANDSHAKE_S):
            return list(await asyncio.gather(*[one(place) for place in places]))

    async def _measure(self) -> None:
        load = self.load
        self._begin = self._last = perf_counter()
        self._count_from = self._begin + load.warm_up_s
        self._until = self._count_from + load.seconds
        if load.rate is None:
            for place in range(load.pairs):
                for _ in range(load.window):
                    self._send(place, perf_counter())
        else:
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._pace, args=(loop, load.rate), daemon=True).start()
        await asyncio.sleep(load.warm_up_s + load.seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._left:
                    self._idle.clear()
                    await self._idle.wait()

    def _pace(self, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        """Wake the loop when messages are due; on a thread, for the loop counts in milliseconds."""
        step = 1.0 / rate
        number, total = 0, int((self.load.warm_up_s + self.load.seconds) * rate)
        while number < total:
            wait = self._begin + number * step - perf_counter()
            if wait > 0:
                time.sleep(wait)
            count = min(total, int((perf_counter() - self._begin) / step) + 1) - number
            if count > 0:
                loop.call_soon_threadsafe(self._due, number, count, step)
                number += count

    def _due(self, first: int, count: int, step: float) -> None:
        now = perf_counter()
        for number in range(first, first + count):
            intended = self._begin + number * step
            if intended >= self._count_from:
                self._late.append(now - intended)
            self._send(number % self.load.pairs, intended)

    def _send(self, place: int, began: float) -> None:
        number = self._sent
        self._sent += 1
        self._left[number] = _Left(1 + self.load.fan, place, began)
        self._publishers[place].send(self._text[place].replace(NUMBER, b"%09d" % number))

    def part(self, number: int) -> None:
        """One frame of a message is in: its `accepted`, or its envelope at one subscriber."""
        left = self._left.get(number)
        if left is None:
            self.errors += 1
            return
        left.parts -= 1
        if left.parts:
            return
        del self._left[number]
        now = perf_counter()
        self._total += 1
        counted = left.began if self.load.rate is not None else now
        if self._count_from <= counted <= self._until:
            self._latencies.append(now - left.began)
            self._last = now
        if self.load.rate is None and now < self._until:
            self._send(left.place, now)
        if not self._left:
            self._idle.set()

    def _result(self) -> Result:
        took = max(1e-6, self._last - self._count_from)
        return Result(
            rate=len(self._latencies) / took,
            p50_ms=percentile(self._latencies, 0.5) * 1000,
            p99_ms=percentile(self._latencies, 0.99) * 1000,
            total=self._total,
            errors=self.errors,
            late_p99_ms=percentile(self._late, 0.99) * 1000,
            sample=self.sample.decode(errors="replace")[:400],
        )


def main() -> None:
    """Run the load that the first line of standard input holds."""
    load = msgspec.json.decode(sys.stdin.readline(), type=StreamLoad)
    raise_file_limit()

    async def run() -> None:
        await _Run(load).go()

    uvloop.run(run())


if __name__ == "__main__":
    main()
