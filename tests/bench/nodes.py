"""OctoHub nodes as a light client: raw WebSocket frames, every task answered at once.

A mask of four zeros is a mask (RFC 6455, 5.3), and leaves the payload as it is.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from typing import Final, cast

import msgspec

__all__ = ["NodeConnection", "Nodes", "node_path"]

KEY: Final = b"your-secret-key-here"
"""The shipped key of addresses, good on loopback only."""

_TASK_ID: Final = re.compile(rb'"task_id":"([^"]+)"')
_SHORT: Final = 126
_LONG: Final = 127
_TEXT: Final = 0x81
_PING: Final = 0x89


class Nodes(msgspec.Struct, frozen=True):
    """Nodes that are connected while a load runs.

    Attributes:
        most_waiting: Senders pause while so many tasks were sent and not done.
        per_request: Tasks that one request sends.
    """

    count: int
    concurrency: int
    most_waiting: int = 300
    per_request: int = 1


def node_path(number: int, *, now_s: int | None = None) -> str:
    """Return path and query of a node's address, signed as another server would."""
    pc_id = f"node_{number:016x}"
    timestamp = int(time.time()) if now_s is None else now_s
    signature = hmac.digest(KEY, f"{pc_id}{timestamp}".encode(), "sha256").hex()
    return f"/ws/node?pc_id={pc_id}&timestamp={timestamp}&signature={signature}"


class NodeConnection(asyncio.Protocol):
    """One node."""

    def __init__(self, number: int, concurrency: int, done: Callable[[bytes], None]) -> None:
        self._number = number
        self._concurrency = concurrency
        self._done = done
        self._buffer: bytes = b""
        self._upgraded = False
        self.ready: Final = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        head = (
            f"GET {node_path(self._number)} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        )
        self.transport.write(head.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self._buffer[:300].decode("latin-1")))
        elif not self.closing:
            self._done(b"lost")

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        start = 0
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0 or not data.startswith(b"HTTP/1.1 101"):
                self._buffer = data
                return
            self._upgraded = True
            start = end + 4
        while (cut := _frame(data, start)) is not None:
            opcode, payload, start = cut
            self._take(opcode, payload)
        self._buffer = data[start:]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._write(0x8A, payload)
        elif opcode != _TEXT:
            return
        elif payload.startswith(b'{"type":"task"'):
            found = _TASK_ID.search(payload)
            assert found is not None
            self._write(
                _TEXT,
                b'{"type":"task_result","task_id":"%b","status":"completed",'
                b'"result":{"echo":{"k":"v"},"processed_at":1700000001},"timestamp":1700000001}'
                % found[1],
            )
            self._done(payload)
        elif payload.startswith(b'{"type":"connected"'):
            ready = {"type": "node_ready", "task_types": ["echo"]}
            ready_frame = {**ready, "max_concurrency": self._concurrency}
            self._write(_TEXT, msgspec.json.encode(ready_frame))
            self.ready.set_result(None)

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < _SHORT:
            head = bytes((opcode, 0x80 | size, 0, 0, 0, 0))
        else:
            head = bytes((opcode, 0x80 | _SHORT)) + size.to_bytes(2, "big") + b"\0\0\0\0"
        assert self.transport is not None
        self.transport.write(head + payload)


def _frame(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """Return opcode, payload and end of the frame at a place; None while it is not all there."""
    if len(data) < start + 2:
        return None
    size, body = data[start + 1], start + 2
    if size == _SHORT:
        size, body = int.from_bytes(data[body : body + 2], "big"), body + 2
    elif size == _LONG:
        size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
    end = body + size
    return None if len(data) < end else (data[start], data[body:end], end)
