"""A load client that speaks WebSocket, in a process of its own: hand-made frames on uvloop.

Closed loop: every connection sends its next message when the answer to the last one is in. What is
sent has a mask of zeros, so that it is built once; what comes is looked at for one piece of text.

`python -m tests.bench.chat` reads one `Chat` as JSON from standard input and writes one `Result`.
With `idle` it connects, says hello, prints a line, and stays until standard input is closed.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, cast

import msgspec
import uvloop

from tests.bench.load import GRACE_S, HOST, Result, percentile

__all__ = ["Chat", "idling", "run_chat"]

IN_ONE_GO: Final = 100
"""Idle connections that are opened at once."""


class Chat(msgspec.Struct, frozen=True):
    """What to say, and how.

    Attributes:
        hello: Frames to send one after the other before the first message, each when what
            `greeted` names at the same place has come.
        say: The message; an answer is a frame that has `answer` in it.
        idle: Connections that only say hello and stay.
    """

    port: int
    path: str
    hello: tuple[str, ...] = ()
    greeted: tuple[str, ...] = ()
    say: str = ""
    answer: str = ""
    connections: int = 64
    seconds: float = 3.0
    warm_up_s: float = 0.5
    idle: int = 0


def frame_of(text: str) -> bytes:
    """Return a text frame as a client sends it."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65536:
        head = bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, 0xFF)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


class _Peer(asyncio.Protocol):
    """One connection: handshake, hello, then one message under way at a time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._chat = run.chat
        self._buffer = b""
        self._open = False
        self._step = 0
        self.transport: asyncio.Transport | None = None
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {self._chat.path} HTTP/1.1",
            f"Host: {HOST}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        self.transport.write("\r\n".join((*lines, "", "")).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.lost()

    def send(self) -> None:
        assert self.transport is not None
        self.began = perf_counter()
        self.transport.write(self._run.frame)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            assert buffer.startswith(b"HTTP/1.1 101"), buffer[:300]
            buffer = buffer[end + 4 :]
            self._open = True
            self._greet(b"")
        while len(buffer) >= 2:
            size, start = buffer[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(buffer[2:10], "big"), 10
            if len(buffer) < start + size:
                break
            kind, payload = buffer[0] & 0x0F, buffer[start : start + size]
            buffer = buffer[start + size :]
            if kind == 9:
                self._write(b"\x8a\x80\0\0\0\0")
            elif kind == 1:
                self._frame(payload)
        self._buffer = buffer

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _frame(self, payload: bytes) -> None:
        if payload == b"2":  # Engine.IO asks whether we are there
            self._write(frame_of("3"))
        elif self._step <= len(self._chat.hello):
            self._greet(payload)
        elif self._run.answer in payload:
            self._run.answered(self)

    def _greet(self, payload: bytes) -> None:
        """Say the next part of hello once what it waits for has come."""
        chat = self._chat
        while self._step <= len(chat.hello):
            waits_for = chat.greeted[self._step - 1].encode() if self._step else b""
            if waits_for not in payload:
                return
            if self._step == len(chat.hello):
                self._step += 1
                self._run.ready()
                return
            self._write(frame_of(chat.hello[self._step]))
            self._step += 1
            if chat.greeted[self._step - 1]:
                return


class _Run:
    """One load, on one loop."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.frame = frame_of(chat.say)
        self.answer = chat.answer.encode()
        self._latencies: list[float] = []
        self._total = 0
        self._errors = 0
        self._waiting = 0
        self._all_ready = asyncio.Event()
        self._count_from = self._until = self._last = 0.0
        self._under_way = 0
        self._over = False

    def ready(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._all_ready.set()

    def lost(self) -> None:
        if not self._over:
            self._errors += 1

    def answered(self, peer: _Peer) -> None:
        now = perf_counter()
        self._total += 1
        self._under_way -= 1
        if self._count_from <= now <= self._until:
            self._latencies.append(now - peer.began)
            self._last = now
        if now < self._until:
            self._under_way += 1
            peer.send()

    async def connect(self, count: int) -> list[_Peer]:
        """Connect so many, and wait until all have been greeted."""
        loop = asyncio.get_running_loop()
        self._waiting = count
        self._all_ready.clear()
        peers: list[_Peer] = []
        for _ in range(count):
            made = await loop.create_connection(lambda: _Peer(self), HOST, self.chat.port)
            peers.append(made[1])
        async with asyncio.timeout(30.0):
            await self._all_ready.wait()
        return peers

    async def go(self) -> Result:
        chat = self.chat
        peers = await self.connect(chat.connections)
        self._count_from = perf_counter() + chat.warm_up_s
        self._until = self._count_from + chat.seconds
        for peer in peers:
            self._under_way += 1
            peer.send()
        await asyncio.sleep(chat.warm_up_s + chat.seconds)
        for _ in range(100):
            if not self._under_way:
                break
            await asyncio.sleep(GRACE_S / 100)
        self._over = True
        for peer in peers:
            if peer.transport is not None:
                peer.transport.abort()
        took = max(1e-6, self._last - self._count_from)
        return Result(
            rate=len(self._latencies) / took,
            p50_ms=percentile(self._latencies, 0.5) * 1000,
            p99_ms=percentile(self._latencies, 0.99) * 1000,
            total=self._total,
            errors=self._errors + self._under_way,
        )

    async def stay(self) -> None:
        """Connect `idle` of them and stay until standard input ends."""
        left = self.chat.idle
        while left:
            count = min(left, IN_ONE_GO)
            await self.connect(count)
            left -= count
        print(f"idle {self.chat.idle}", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


def run_chat(chat: Chat) -> Result:
    """Run a load in a process of its own, and wait for it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.chat"],
        input=msgspec.json.encode(chat),
        stdout=subprocess.PIPE,
        timeout=chat.warm_up_s + chat.seconds + GRACE_S + 60.0,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Result)


@contextmanager
def idling(chat: Chat) -> Generator[None]:
    """Have `chat.idle` connections that only stay."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.chat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(chat) + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line.startswith(b"idle"), line
        yield
    finally:
        process.stdin.close()
        process.wait(30)


def main() -> None:
    """Run the load that standard input holds."""
    chat = msgspec.json.decode(sys.stdin.buffer.readline(), type=Chat)
    if chat.idle:

        async def stay() -> None:
            await _Run(chat).stay()

        uvloop.run(stay())
        return

    async def run() -> Result:
        return await _Run(chat).go()

    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run())))


if __name__ == "__main__":
    main()
