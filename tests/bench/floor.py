"""The floor: the same path with nothing but its parts, run exactly as the hub runs them.

`/durable`  Starlette, JSON read and written, one row into SQLite by group commit: one thread
            writes, what arrived during the last commit is the next batch. WAL, synchronous = FULL.
`/batch`    the same for an array of messages, in one commit.
`/volatile` Starlette, JSON read and written, nothing kept.
`/echo`     Starlette, WebSocket: what comes goes back; `/echo/durable` when it is in SQLite.

`python -m tests.bench.floor DATABASE` prints one line when it is ready, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sqlite3
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from hubbub.listeners import HttpListener

__all__ = ["Floor", "GroupCommit"]

MOST_IN_COMMIT: Final = 512
_CREATE: Final = "CREATE TABLE message (seq INTEGER PRIMARY KEY, id TEXT, at_us INTEGER, body BLOB)"
_INSERT: Final = "INSERT INTO message (seq, id, at_us, body) VALUES (?, ?, ?, ?)"

Row = tuple[int, str, int, bytes]


@dataclass(slots=True, eq=False)
class _Entry:
    rows: list[Row]
    future: asyncio.Future[None]


class GroupCommit:
    """One writer; what arrives while it commits is its next batch."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: deque[_Entry] = deque()
        self._wake = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def keep(self, rows: list[Row]) -> None:
        """Return when the rows are on disk."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(_Entry(rows, future))
        if not self._wake.is_set():
            self._wake.set()
        await future

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -32768"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(_CREATE)
        waiting = self._waiting
        while True:
            self._wake.wait()
            entries = [waiting.popleft() for _ in range(min(len(waiting), MOST_IN_COMMIT))]
            if not entries:
                if self._stopping:
                    break
                self._wake.clear()
                if waiting:
                    self._wake.set()
                continue
            connection.execute("BEGIN")
            connection.executemany(_INSERT, [row for entry in entries for row in entry.rows])
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._resolve, entries)
        connection.close()

    def _resolve(self, entries: list[_Entry]) -> None:
        for entry in entries:
            if not entry.future.done():
                entry.future.set_result(None)


class Floor:
    """The handlers."""

    def __init__(self, path: str) -> None:
        self._commit = GroupCommit(path)
        self._seq = 0

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/durable", self.durable, methods=["POST"]),
                Route("/batch", self.batch, methods=["POST"]),
                Route("/volatile", self.volatile, methods=["POST"]),
                WebSocketRoute("/echo", self.echo),
                WebSocketRoute("/echo/durable", self.echo_durable),
            ]
        )

    def stop(self) -> None:
        """Write what waits."""
        self._commit.stop()

    async def durable(self, request: Request) -> Response:
        """Keep one message, then answer."""
        row = self._row(msgspec.json.decode(await request.body()))
        await self._commit.keep([row])
        return _json({"status": "ok", "id": row[1]})

    async def batch(self, request: Request) -> Response:
        """Keep an array of messages in one commit, then answer."""
        rows = [self._row(message) for message in msgspec.json.decode(await request.body())]
        await self._commit.keep(rows)
        return _json({"items": [{"status": "ok", "id": row[1]} for row in rows]})

    async def volatile(self, request: Request) -> Response:
        """Answer."""
        row = self._row(msgspec.json.decode(await request.body()))
        return _json({"status": "ok", "id": row[1]})

    async def echo(self, socket: WebSocket) -> None:
        """Send back what comes."""
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    async def echo_durable(self, socket: WebSocket) -> None:
        """Keep what comes, then send it back."""
        await socket.accept()
        async for text in socket.iter_text():
            await self._commit.keep([self._row(msgspec.json.decode(text))])
            await socket.send_text(text)

    def _row(self, message: Any) -> Row:
        self._seq += 1
        at_us = time.time_ns() // 1000
        return (self._seq, f"m_{at_us}{self._seq:06d}", at_us, msgspec.json.encode(message))


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _serve(path: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    floor = Floor(path)
    listener = HttpListener("127.0.0.1", 0)
    listener.bind()
    gc.collect()
    gc.freeze()
    await listener.serve(floor.app(), drain_timeout_s=1.0)
    print(f"floor ready {listener.url}", flush=True)
    await stop.wait()
    await listener.stop()
    floor.stop()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
