"""One connection's way out: one frame at a time, in order; what controls overtakes messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hubbub import Retry

__all__ = ["PAUSED", "Outlet"]

PAUSED = "paused"

T = TypeVar("T")


class Outlet:
    """Lets one writer in at a time. While nobody waits it costs two assignments a frame.

    Attributes:
        taken: Somebody writes.
    """

    __slots__ = ("_control", "_messages", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._control: deque[asyncio.Future[None]] = deque()
        self._messages: deque[asyncio.Future[None]] = deque()

    async def write(
        self, send: Callable[[T], Awaitable[object]], frame: T, *, message: bool = False
    ) -> None:
        """Write a frame when it is its turn.

        Args:
            message: It waits behind frames that control, and not at all once it is held.

        Raises:
            Retry: it was held; nothing of it was written.
        """
        if self.taken:
            await self._turn(self._messages if message else self._control)
        else:
            self.taken = True
        try:
            await send(frame)
        finally:
            self._next()

    def hold(self) -> None:
        """Send messages that wait for their turn back; the one being written goes out."""
        messages, self._messages = self._messages, deque()
        for turn in messages:
            if not turn.done():
                turn.set_exception(Retry(0.0, PAUSED, counted=False))

    async def _turn(self, line: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()  # it had its turn, and was cancelled in the same moment
            raise

    def _next(self) -> None:
        for line in (self._control, self._messages):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self.taken = False
