"""A fake application of KenkoGo: registers, beats, and echoes what it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

__all__ = ["Application", "SimulationError"]

HEARTBEAT_S: Final = 20.0


class SimulationError(Exception):
    """The hub did not do what was asked."""


class Application:
    """One application; `run` returns when it has answered enough.

    Args:
        count: Messages to answer; 0 is for ever.
        first_words: What it says itself once it was started; nothing when empty.
        acks: Whether it acknowledges messages.
        tell: Called with a line for everything that happens.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        token: str = "",
        count: int = 0,
        first_words: str = "",
        acks: bool = False,
        tell: Callable[[str], None],
    ) -> None:
        self._url = url
        self._name = name
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._count = count
        self._first_words = first_words
        self._acks = acks
        self._tell = tell
        self._answered = 0

    async def run(self) -> None:
        """Connect, register, answer.

        Raises:
            SimulationError: refused, or disconnected before it had answered enough.
        """
        try:
            async with connect(self._url, additional_headers=self._headers, proxy=None) as socket:
                beating = asyncio.ensure_future(_beat(socket))
                try:
                    await self._serve(socket)
                finally:
                    beating.cancel()
        except InvalidHandshake as error:
            raise SimulationError(f"{self._url} refuses: {error}") from error
        except ConnectionClosed as error:
            raise SimulationError(f"{self._url} has closed: {error}") from error

    async def _serve(self, socket: ClientConnection) -> None:
        data: dict[str, Any] = {
            "name": self._name,
            "version": "1",
            "description": "hubbub simulate kenko",
            "author": "",
        }
        if self._acks:
            data["capabilities"] = ["ack"]
        await _send(socket, "register", data)
        async for text in socket:
            frame = json.loads(text)
            await self._take(socket, frame["type"], frame.get("data") or {})
            if self._count and self._answered >= self._count:
                return

    async def _take(self, socket: ClientConnection, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "register" if data["success"]:
                self._tell(f"registered {data['id']}")
            case "register":
                raise SimulationError(f"refused: {data['code']}: {data['message']}")
            case "message":
                self._tell(f"message {data['id']} {data['content']}")
                answer = {"content": data["content"], "reply_to": data["id"]}
                await _send(socket, "message", answer)
                if self._acks:
                    await _send(socket, "ack", {"id": data["id"], "ok": True, "error": None})
                self._answered += 1
            case "start":
                self._tell("start")
                if self._first_words:
                    await _send(socket, "message", {"content": self._first_words})
                    self._first_words = ""
            case _:
                self._tell(f"{kind} {json.dumps(data, ensure_ascii=False)}")


async def _beat(socket: ClientConnection) -> None:
    """Keep the promise of the protocol: be heard every 30 seconds."""
    with suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await _send(socket, "heartbeat")


async def _send(socket: ClientConnection, kind: str, data: object = None) -> None:
    frame = {"type": kind} if data is None else {"type": kind, "data": data}
    await socket.send(json.dumps(frame, ensure_ascii=False))
