"""KenkoGo stands what every adapter has to stand."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import ClassVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub.testing import AdapterSuite, Served
from tests.adapters.kenko.serving import REGISTER


class TestKenko(AdapterSuite[ClientConnection]):
    """Family W, on a listener of its own."""

    name = "kenko"
    subject = "kenko.*.message"
    carries_trace = False
    garbage: ClassVar = {
        "nothing": b"",
        "not json": b"{",
        "no object": b"[1]",
        "no type": b"{}",
        "no content": b'{"type": "message", "data": {}}',
        "not text": b'{"type": "message", "data": {"content": "\xff"}}',
        "deep": b"[" * 100_000,
    }

    async def connect(self, served: Served) -> ClientConnection:
        client = await connect(f"ws://{served.address}/", proxy=None)
        await client.send(json.dumps(REGISTER))
        assert json.loads(await client.recv())["data"]["success"]
        assert json.loads(await client.recv()) == {"type": "start"}
        return client

    async def say(self, peer: ClientConnection, text: str, traceparent: str) -> None:
        await peer.send(json.dumps({"type": "message", "data": {"content": text}}))

    async def throw(self, peer: ClientConnection, garbage: bytes) -> None:
        await peer.send(garbage)
        assert json.loads(await peer.recv())["type"] == "error"

    async def vanish(self, peer: ClientConnection) -> None:
        raw = peer.transport
        raw.write(b"\x81\xfe\x01")
        raw.abort()

    async def leave(self, peer: ClientConnection) -> None:
        with suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(5):
                await peer.close()
