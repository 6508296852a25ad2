"""One registered application: an endpoint of the hub, `kenko.app.<id>`, on its connection."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from hubbub import Endpoint, Envelope, Reject, Retry
from hubbub.envelope import (
    CHAT_MESSAGE,
    EVENT,
    PRESENCE,
    TASK_REQUEST,
    TASK_RESULT,
    TASK_UPDATE,
)
from hubbub.errors import ConflictError
from hubbub.ports import Link
from hubbub.values import EVERYTHING, Principal
from hubbub_kenko import wire
from hubbub_kenko.chat import Dispatch, Speaker
from hubbub_kenko.config import KenkoSettings
from hubbub_kenko.history import KenkoAppRow
from hubbub_kenko.session import REMOVED, REPLACED, State
from hubbub_kenko.wire import Frame, Register
from hubbub_kenko.wiring import CHAT_LABEL, WANTED

if TYPE_CHECKING:
    from hubbub_kenko.connection import Connection

__all__ = ["LINGER_S", "App", "WrittenApp"]

LINGER_S: Final = 60.0
"""How long what waits for an application that left is kept: it comes back under another id."""

TASKS: Final = 4096
"""Tasks of one application whose answers are recognised; the oldest are forgotten."""

TAKES: Final = (CHAT_MESSAGE, EVENT, TASK_RESULT, TASK_UPDATE, PRESENCE)
"""What an application understands; whatever converts to one of these reaches it too."""


class App(Endpoint):
    """One registered application.

    Attributes:
        id: `app_` and 32 hexadecimal digits; new for every registration.
        capabilities: What it declared, such as `ack` or `runner`.
        unacknowledged: Messages it was sent and has not acknowledged, by id.
        tasks: Tasks it was sent, by the id of the message.
    """

    def __init__(
        self, app_id: str, register: Register, connection: Connection, settings: KenkoSettings
    ) -> None:
        acks = "ack" in register.capabilities
        works = "task" in register.capabilities
        super().__init__(
            address=f"kenko.app.{app_id}",
            accepts=(*TAKES, TASK_REQUEST) if works else TAKES,
            labels={"name": register.name, "version": register.version, "lang": register.lang},
            concurrency=0,  # until it is started
            task_types=_work_of(register),
            linger_s=LINGER_S,
            queue_size=settings.queue_size,
            max_attempts=settings.max_redeliver if acks else None,
            timeout_s=settings.ack_timeout if acks else None,
        )
        self.id: Final = app_id
        self.name: Final = register.name
        self.register: Final = register
        self.capabilities: Final = register.capabilities
        self.subject: Final = f"kenko.{app_id}.message"
        self.principal: Final = Principal(
            register.name, self.address, frozenset({"publish:kenko.>", "direct:>"}), durable=False
        )
        self.unacknowledged: Final[dict[str, asyncio.Future[None]]] = {}
        self.tasks: Final[OrderedDict[str, str]] = OrderedDict()
        self.speaker: Final = Speaker(app_id, register)
        self.link: Link | None = None
        self._open = False
        self._acks = acks
        self._segments = "segments" in register.capabilities
        self._connection = connection
        self._settled = asyncio.Event()
        self._registered_us = connection.desk.now_us()

    # What the hub does with an endpoint

    async def deliver(self, envelope: Envelope) -> None:
        """Write a message; with the capability `ack`, wait until it is acknowledged.

        Raises:
            Retry: not now; nothing was written.
            Reject: the application says that it never will take it.
        """
        began = perf_counter()
        connection = self._connection
        sent = self._dispatch(envelope)
        if sent.task_id is not None:
            self._note_task(envelope.id, sent.task_id)
        if self._acks:
            await self._acknowledged(envelope.id, sent.frame)
        else:
            await connection.send_message(sent.frame)
        connection.desk.metrics.dispatch_seconds.observe(perf_counter() - began)

    def _dispatch(self, envelope: Envelope) -> Dispatch:
        return self._connection.desk.dispatch(
            envelope, lang=self.register.lang, segments=self._segments
        )

    def overloaded(self) -> None:
        """Pause it; it goes on when it has taken what is under way."""
        self._connection.overloaded()

    def cancel(self, task_id: str) -> None:
        """Tell it that nobody wants a task's answer any more; its slot is free when it answers."""
        asked = (message for message, task in reversed(self.tasks.items()) if task == task_id)
        ref = next(asked, None)
        if ref is not None:
            self._connection.desk.spawn(self._tell_cancelled(ref))

    async def _tell_cancelled(self, ref: str) -> None:
        told = wire.error("cancelled", "nobody wants the answer to this task any more", ref)
        try:
            await self._connection.send_message(told)  # not before the message that it is about
        except Retry:  # paused: that message waits no longer in the connection
            await self._connection.answer(told)

    async def _acknowledged(self, message_id: str, frame: Frame) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unacknowledged[message_id] = answer
        try:
            await self._connection.send_message(frame)
            await answer
        finally:
            if self.unacknowledged.get(message_id) is answer:
                del self.unacknowledged[message_id]
            if not self.unacknowledged:
                self._settled.set()

    def _note_task(self, message_id: str, task_id: str) -> None:
        self.tasks[message_id] = task_id
        if len(self.tasks) > TASKS:
            self.tasks.popitem(last=False)

    # What its client says

    def acknowledge(self, message_id: str, *, rejected: str | None = None) -> bool:
        """Take its answer to a message; False when it does not wait for one (any more)."""
        answer = self.unacknowledged.get(message_id)
        if answer is None or answer.done():
            return False
        if rejected is None:
            answer.set_result(None)
        else:
            answer.set_exception(Reject(rejected))
        return True

    async def all_acknowledged(self) -> None:
        """Return once nothing that was written waits for its answer."""
        while self.unacknowledged:
            self._settled.clear()
            await self._settled.wait()

    # How it is

    @property
    def open(self) -> bool:
        """Whether messages may be written to it."""
        return self._open

    @property
    def state(self) -> State:
        """How it is now."""
        return self._connection.session.state

    @property
    def depth(self) -> int:
        """Messages that wait for it or are under way to it."""
        if self.link is None:
            return 0
        return self.link.waiting + len(self.unacknowledged)

    def schedule(self) -> None:
        """It has been told that messages come: let them."""
        self._open = True
        if self.register.subscribe is None:
            self._relabel(WANTED)
        if self.link is not None:
            self.link.slots = self.register.concurrency

    def unschedule(self) -> None:
        """Let no message come any more."""
        self._open = False
        self._relabel(None)
        if self.link is not None:
            self.link.slots = 0

    def _relabel(self, wanted: str | None) -> None:
        labels = {name: value for name, value in self.labels.items() if name != CHAT_LABEL}
        self.labels = labels if wanted is None else {**labels, CHAT_LABEL: wanted}

    def row(self) -> KenkoAppRow:
        """Return it as the history has it."""
        register, connection = self.register, self._connection
        session = connection.session
        gone = session.state is State.DISCONNECTED
        return KenkoAppRow(
            id=self.id,
            name=register.name,
            version=register.version,
            description=register.description,
            author=register.author,
            lang=register.lang,
            capabilities=",".join(sorted(register.capabilities)),
            state=session.state.value,
            transport=connection.transport,
            remote=connection.remote,
            connected_at=int(session.opened_at * 1e6),
            registered_at=self._registered_us,
            last_seen=int(connection.seen_at * 1e6),
            disconnected_at=connection.desk.now_us() if gone else None,
            close_code=connection.close_code if gone else None,
        )

    # What an operator does with it

    def start(self) -> None:
        """Send it messages.

        Raises:
            ConflictError: it is not IDLE.
        """
        if not self._connection.start():
            raise ConflictError(f"application {self.id!r} is {self.state.name}, not IDLE")

    def pause(self, reason: str = "admin") -> None:
        """Send it no messages.

        Raises:
            ConflictError: it is not RUNNING.
        """
        if not self._connection.pause("error" if reason == "error" else "admin"):
            raise ConflictError(f"application {self.id!r} is {self.state.name}, not RUNNING")

    def kick(self) -> None:
        """Disconnect it."""
        self._connection.close(REMOVED, "removed by an administrator")

    def replaced(self) -> None:
        """Disconnect a runner whose token another one has joined with."""
        self._connection.close(REPLACED, "another runner has joined with this token")

    async def answer(self, frame: Frame) -> None:
        """Write one frame, before messages that wait, if it is still there."""
        await self._connection.answer(frame)

    async def send(self, kind: str, data: dict[str, Any]) -> None:
        """Write one frame of any type, such as `runner.exec`.

        Raises:
            ConnectionError: it has left.
        """
        await self._connection.write(Frame(kind, data))


class WrittenApp(App):
    """One that has taken what is written to it, on a socket that tells whether it has room."""

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Write all of them in one go, if nothing waits and the socket has room."""
        if not self._open:
            return 0
        began = perf_counter()
        texts = [self._dispatch(envelope).frame.text for envelope in envelopes]
        if not self._connection.send_texts(texts):
            return 0
        self._connection.desk.metrics.dispatch_seconds.observe(perf_counter() - began)
        return len(texts)


def _work_of(register: Register) -> tuple[str, ...]:
    """Return the task types of an application: none without the capability `task`."""
    if "task" not in register.capabilities:
        return ()
    return (EVERYTHING,) if register.task_types is None else register.task_types
