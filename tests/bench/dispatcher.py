"""A bare dispatcher: what giving tasks to nodes costs with nothing but its parts.

`POST /tasks`   an array of tasks, one row each, in one commit (as the floor); then they wait.
`/ws/node`      a node: gets as many tasks as it says it does at once; a result is one row more, and
                frees its slot after the commit.

`python -m tests.bench.dispatcher DATABASE` prints one line when it is ready, and ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections import deque
from typing import Any

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from hubbub.listeners import HttpListener
from tests.bench.floor import GroupCommit, Row

__all__ = ["Dispatcher"]


_read_tasks = msgspec.json.Decoder(list[dict[str, Any]]).decode


class Dispatcher:
    """Tasks that wait, and free slots."""

    def __init__(self, path: str) -> None:
        self._commit = GroupCommit(path)
        self._seq = 0
        self._waiting: deque[tuple[str, Any]] = deque()
        self._free: deque[Send] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/tasks", self.tasks, methods=["POST"]),
                WebSocketRoute("/ws/node", _Socket(self)),
            ]
        )

    def stop(self) -> None:
        """Write what waits."""
        self._commit.stop()

    async def tasks(self, request: Request) -> Response:
        """Keep an array of tasks, then answer; a single one is an array of one."""
        body = await request.body()
        tasks = _read_tasks(body if body.startswith(b"[") else b"[%b]" % body)
        rows = [self._row(msgspec.json.encode(task)) for task in tasks]
        await self._commit.keep(rows)
        self._waiting.extend((row[1], task) for row, task in zip(rows, tasks, strict=True))
        await self._dispatch()
        items = [{"id": row[1]} for row in rows]
        return Response(msgspec.json.encode({"items": items}), media_type="application/json")

    def free(self, send: Send, slots: int = 1) -> None:
        """Note that a node may be given more."""
        self._free.extend([send] * slots)

    def gone(self, send: Send) -> None:
        """A node has left."""
        self._free = deque(one for one in self._free if one is not send)

    def result(self, send: Send, text: str) -> None:
        """Keep a result beside, then give the node its next task."""
        task = asyncio.create_task(self._finish(send, text))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def dispatch(self) -> None:
        """Give what waits to who is free."""
        await self._dispatch()

    async def _finish(self, send: Send, text: str) -> None:
        result = msgspec.json.decode(text)
        await self._commit.keep([self._row(msgspec.json.encode(result))])
        self.free(send)
        await self._dispatch()

    async def _dispatch(self) -> None:
        while self._waiting and self._free:
            task_id, task = self._waiting.popleft()
            data = task.get("data", {})
            frame = {
                "type": "task",
                "task_id": task_id,
                "task_type": "echo",
                "data": data.get("params", data),
                "timestamp": int(time.time()),
            }
            text = msgspec.json.encode(frame).decode()
            await self._free.popleft()({"type": "websocket.send", "text": text})

    def _row(self, body: bytes) -> Row:
        self._seq += 1
        at_us = time.time_ns() // 1000
        return (self._seq, f"t_{at_us}{self._seq:06d}", at_us, body)


class _Socket:
    """The path of nodes, an ASGI application."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"type":"connected"}'})
        try:
            await self._read(receive, send)
        except (WebSocketDisconnect, OSError):
            pass
        finally:
            self._dispatcher.gone(send)

    async def _read(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            text: str = message["text"]
            if text.startswith('{"type":"node_ready"'):
                self._dispatcher.free(send, msgspec.json.decode(text)["max_concurrency"])
                await self._dispatcher.dispatch()
            else:
                self._dispatcher.result(send, text)


async def _serve(path: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    dispatcher = Dispatcher(path)
    listener = HttpListener("127.0.0.1", 0)
    listener.bind()
    gc.collect()
    gc.freeze()
    await listener.serve(dispatcher.app(), drain_timeout_s=1.0)
    print(f"dispatcher ready {listener.url}", flush=True)
    await stop.wait()
    await listener.stop()
    dispatcher.stop()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
