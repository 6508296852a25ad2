"""The floor of streams: a WebSocket in, a dict of subjects, a WebSocket out; nothing else.

Stock uvicorn (uvloop, httptools, websockets-sansio, no compression), a plain ASGI callable, frames
read and written by msgspec. With `durable` in its query a publisher's message is one row in SQLite
by group commit first. It does not authenticate, stamp, trace, count, limit, or keep anything for
somebody who is away.

`python -m tests.bench.floor_streams DATABASE` says in a line that it is ready, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import time
from itertools import count
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
import uvloop
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tests.bench.floor import GroupCommit

__all__ = ["StreamFloor"]

Send = Any
"""ASGI's."""


class _Short(msgspec.Struct):
    subject: str
    data: msgspec.Raw


class _Publish(msgspec.Struct):
    ref: str
    envelope: _Short


_read: Final = msgspec.json.Decoder(_Publish).decode
_encode: Final = msgspec.json.Encoder().encode


class StreamFloor:
    """Connections by the subject they want."""

    def __init__(self, path: str) -> None:
        self._commit = GroupCommit(path)
        self._wanted: dict[str, list[Send]] = {}
        self._numbers = count(1)

    def stop(self) -> None:
        """Write what waits."""
        self._commit.stop()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()
        await send({"type": "websocket.accept"})
        query = parse_qs(scope["query_string"].decode())
        for subject in query.get("subject", ()):
            self._wanted.setdefault(subject, []).append(send)
        await send({"type": "websocket.send", "text": '{"type":"hello"}'})
        tasks: set[asyncio.Task[None]] = set()
        while (message := await receive())["type"] == "websocket.receive":
            frame = _read(message["text"])
            if "durable" in query:
                task = asyncio.create_task(self._kept(frame, send))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                await self._pass_on(frame, send)
        for subject in query.get("subject", ()):
            self._wanted[subject].remove(send)

    async def _kept(self, frame: _Publish, send: Send) -> None:
        at_us = time.time_ns() // 1000
        row = (next(self._numbers), frame.ref, at_us, bytes(frame.envelope.data))
        await self._commit.keep([row])
        await self._pass_on(frame, send)

    async def _pass_on(self, frame: _Publish, send: Send) -> None:
        envelope = _encode(frame.envelope).decode()
        for wanted in self._wanted.get(frame.envelope.subject, ()):
            text = f'{{"type":"envelope","delivery":{next(self._numbers)},"envelope":{envelope}}}'
            await wanted({"type": "websocket.send", "text": text})
        text = f'{{"type":"accepted","ref":"{frame.ref}"}}'
        await send({"type": "websocket.send", "text": text})


async def _serve(path: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    floor = StreamFloor(path)
    config = Config(
        floor, loop="none", http="httptools", ws="websockets-sansio", lifespan="off",
        ws_per_message_deflate=False, log_config=None, access_log=False, proxy_headers=False,
        server_header=False, date_header=False,
    )  # fmt: skip
    config.load()
    state = ServerState()
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    gc.collect()
    gc.freeze()
    server = await loop.create_server(
        lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}),
        sock=bound,
        backlog=2048,
    )
    print(f"floor ready http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    floor.stop()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
