"""A stream client as an endpoint: deliveries are frames, written one by one or in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import ConflictError
from hubbub.ports import Link
from hubbub.subjects import escape
from hubbub.tasks import read_request
from hubbub.values import Endpoint
from hubbub.web.sockets import frames
from hubbub.web.sockets.options import Options

__all__ = ["Peer", "StreamEndpoint", "Write", "WriteNow", "WrittenStream"]

Write = Callable[[Callable[[], bytes]], Coroutine[Any, Any, None]]
WriteNow = Callable[[Sequence[bytes]], bool]


class Peer(Protocol):
    """The connection of a stream, for who takes its name over or away."""

    @property
    def source(self) -> str:
        """Who is counted for it."""
        ...

    def make_way(self) -> None:
        """Let a newer connection of the same name take over."""
        ...

    def end(self, code: int, reason: str) -> None:
        """End it with a close code."""
        ...

    def give_up(self) -> None:
        """End it because it reads too slowly."""
        ...


class StreamEndpoint(Endpoint):
    """A stream client that is connected.

    Attributes:
        peer: Its connection.
        link: Its attachment.
    """

    def __init__(
        self,
        options: Options,
        write: Write,
        peer: Peer,
        *,
        linger_s: float,
        owner: str | None = None,
    ) -> None:
        super().__init__(
            address=f"stream.{escape(options.name)}",
            accepts=options.accepts,
            labels=options.labels,
            concurrency=0,  # until hello is out
            task_types=options.task_types,
            linger_s=linger_s,
            owner=owner,
        )
        self.peer = peer
        self.link: Link | None = None
        self._write = write
        self._manual = options.manual
        self._number = 0
        self._unanswered: dict[int, asyncio.Future[None]] = {}
        self._tasks: dict[str, int] = {}

    async def deliver(self, envelope: Envelope) -> None:
        """Write one envelope; with manual acknowledgement, wait for the answer."""
        self._number += 1
        number = self._number
        frame = partial(frames.envelope_frame, number, envelope)
        if not self._manual:
            await self._write(frame)
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = answer
        task_id = read_request(envelope).task_id if envelope.type == TASK_REQUEST else None
        if task_id is not None:
            self._tasks[task_id] = number
        try:
            await self._write(frame)
            if self.link is not None:
                self.link.sent(envelope.id)
            await answer
        finally:
            del self._unanswered[number]
            if task_id is not None:
                self._tasks.pop(task_id, None)

    def overloaded(self) -> None:
        """The hub holds too much, and more for this client than for others."""
        self.peer.give_up()

    def answer(self, number: int, problem: Exception | None = None) -> None:
        """Take the client's answer to a delivery.

        Raises:
            ConflictError: it was never given that one, or has answered it.
        """
        waiting = self._unanswered.get(number)
        if waiting is None or waiting.done():
            raise ConflictError(f"delivery {number} does not wait for an answer from you")
        if problem is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(problem)

    def answered_by_result(self, task_id: str) -> None:
        """A result says also that the task was taken."""
        waiting = self._unanswered.get(self._tasks.get(task_id, 0))
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class WrittenStream(StreamEndpoint):
    """One that acknowledges by taking what is written, on a socket that tells how far it is."""

    def __init__(
        self,
        options: Options,
        write: Write,
        write_now: WriteNow,
        peer: Peer,
        *,
        linger_s: float,
        owner: str | None = None,
    ) -> None:
        super().__init__(options, write, peer, linger_s=linger_s, owner=owner)
        self._write_now = write_now

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Write all of them in one go, if the socket has room."""
        number = self._number
        texts = [
            frames.envelope_frame(number + place, envelope)
            for place, envelope in enumerate(envelopes, 1)
        ]
        if not self._write_now(texts):
            return 0
        self._number += len(texts)
        return len(texts)
