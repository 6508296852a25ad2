"""OctoHub stands what every adapter has to stand."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub.config import Address
from hubbub.testing import AdapterSuite, Served, TcpPeer
from hubbub_octohub.config import SHIPPED_WS_KEY
from hubbub_octohub.signatures import address_signature

NUMBERS = count(1)


@dataclass(slots=True)
class Node:
    """A node that also speaks the dialect of users."""

    socket: ClientConnection
    address: Address

    async def until(self, action: str) -> dict[str, object]:
        """Return the next frame of an action."""
        async with asyncio.timeout(10):
            while True:
                frame: dict[str, object] = json.loads(await self.socket.recv())
                if frame.get("action") == action:
                    return frame


def url(served: Served) -> str:
    """Return the address of a new node, signed as another server would."""
    name = f"node_{next(NUMBERS)}"
    now_s = served.core.clock.now_us() // 1_000_000
    signature = address_signature(SHIPPED_WS_KEY.encode(), name, now_s)
    return f"ws://{served.address}/ws/node?pc_id={name}&timestamp={now_s}&signature={signature}"


class TestOctohub(AdapterSuite[Node]):
    """Over WebSocket, on a listener of its own."""

    name = "octohub"
    subject = "octohub.*.message"
    garbage: ClassVar = {
        "nothing": b"",
        "not json": b"{",
        "no object": b"[1]",
        "no type": b"{}",
        "unknown type": b'{"type": "dance"}',
        "no task": b'{"type": "task_result"}',
        "not text": b'{"type": "\xff"}',
        "deep": b'{"type": ' + b"[" * 100_000,
    }

    async def connect(self, served: Served) -> Node:
        socket = await connect(url(served), proxy=None)
        node = Node(socket, served.address)
        await node.until("connected")
        return node

    async def say(self, peer: Node, text: str, traceparent: str) -> None:
        frame = {"action": "chat", "data": {"text": text}, "traceparent": traceparent}
        await peer.socket.send(json.dumps({**frame, "timestamp": int(time.time())}))
        await peer.until("chat")

    async def throw(self, peer: Node, garbage: bytes) -> None:
        await peer.socket.send(garbage)
        await peer.until("error")

    async def vanish(self, peer: Node) -> None:
        raw = await TcpPeer.connect(peer.address)
        await raw.send(b"GET /ws/node?pc_id=n HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso")
        raw.vanish()
        peer.socket.transport.abort()
        with suppress(ConnectionClosed):
            await peer.socket.recv()

    async def leave(self, peer: Node) -> None:
        await peer.socket.close()
