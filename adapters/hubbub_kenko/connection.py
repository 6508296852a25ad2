"""One client, whatever its transport: its session, what is to be done, its deadlines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from hubbub import Retry
from hubbub.ports import Timer
from hubbub_kenko import wire
from hubbub_kenko.outlet import PAUSED, Outlet
from hubbub_kenko.session import (
    HEARTBEAT_MISSED,
    Close,
    PauseReason,
    Rules,
    Session,
    State,
    Step,
    Todo,
)
from hubbub_kenko.wire import (
    Ack,
    Auth,
    BadRegister,
    Frame,
    FrameError,
    Inbound,
    Message,
    Register,
    RunnerOutput,
    RunnerResult,
)
from hubbub_kenko.wording import worded

if TYPE_CHECKING:
    from hubbub_kenko.app import App
    from hubbub_kenko.desk import Desk

__all__ = ["GONE", "Connection", "WriteNow"]

WriteNow = Callable[[Sequence[bytes]], bool]

GONE: Final = 1006
"""Close code of a client that left without one."""


class Connection(ABC):
    """One client. A subclass knows how frames are written and how the connection ends.

    Attributes:
        remote: Where the client is.
        write_now: Writes text frames if there is room for them; None where that is not known.
        must_show_token: Whether the access token is asked for at registration.
        lang: Language it is told in what goes wrong; None where it named none.
        app: The application it has registered.
        close_code: Why it ended, once it has.
    """

    transport: ClassVar[str]
    write_now: WriteNow | None = None
    must_show_token: bool

    def __init__(self, desk: Desk, rules: Rules, *, remote: str, lang: str | None) -> None:
        self.desk: Final = desk
        self.remote: Final = remote
        self.lang = lang
        self.session: Session = Session.open(rules, now=desk.now())
        self.app: App | None = None
        self.close_code: int | None = None
        self._outlet = Outlet()
        self._schedule = 0
        self._busy = False
        self._heard_at = 0.0
        self._timer: Timer | None = None
        self._watch()

    @abstractmethod
    async def _put(self, frame: Frame) -> None:
        """Write one frame; nobody else does meanwhile.

        Raises:
            ConnectionError: the client has left.
        """

    @abstractmethod
    async def _end(self, code: int, reason: str) -> None:
        """Close the connection."""

    @property
    def peer(self) -> str:
        """Address of the client, without its port."""
        return self.remote.rpartition(":")[0]

    @property
    def seen_at(self) -> float:
        """When it was last heard, in seconds."""
        return max(self.session.seen_at, self._heard_at)

    # In

    async def receive(self, frame: Inbound) -> None:
        """Take one frame."""
        if isinstance(frame, Register | BadRegister | Auth) and not self.session.registered:
            given = frame.register if isinstance(frame, Auth) else frame
            self.lang = given.speaks or self.lang
        self.session, todo = self.session.receive(frame, now=self.desk.now())
        if todo:
            await self._do(todo)

    def receive_now(self, frame: Inbound) -> Coroutine[Any, Any, None] | None:
        """Take one frame as `receive` does, at once where nothing is to be waited for.

        Returns:
            What remains to be done; None for nothing.
        """
        if isinstance(frame, Message) and self.session.state is State.RUNNING:
            assert self.app is not None
            self._heard_at = self.desk.now()
            rest = self.desk.say(self.app, frame)
            return None if rest is None else self._finish(rest)
        return self.receive(frame)

    async def _finish(self, rest: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        try:
            await rest
        finally:
            self._busy = False

    async def refuse(self, failed: FrameError) -> None:
        """Take a frame that could not be read."""
        self.desk.refused(failed.code)
        self.session, todo = self.session.refuse(failed, now=self.desk.now())
        await self._do(todo)

    async def _do(self, todo: Sequence[Todo]) -> None:
        """Do what a step of the session says, in order."""
        self._busy = True
        try:
            for each in todo:
                match each:
                    case Message() if self.app is not None:
                        rest = self.desk.say(self.app, each)
                        if rest is not None:
                            await rest
                    case Ack() if self.app is not None:
                        await self.desk.acknowledge(self.app, each)
                    case Frame():
                        await self._tell(each)
                    case Register():
                        await self._decide(each, None)
                    case Auth(Register() as register, token):
                        await self._decide(register, token)
                    case RunnerResult() if self.app is not None:
                        self.desk.apps.result(self.app, each.data)
                    case RunnerOutput() if self.app is not None:
                        self.desk.apps.output(self.app, each)
                    case Close():
                        self._ended(each)
                    case _:
                        pass
        finally:
            self._busy = False

    async def _tell(self, frame: Frame) -> None:
        """Write a frame of the session; after a start, let messages come."""
        if frame is not wire.START:
            await self.answer(frame)
            return
        self._schedule += 1
        await self._started(self._schedule)

    async def _decide(self, register: Register, token: str | None) -> None:
        decided = await self.desk.decide(self, register, token)
        if isinstance(decided, BadRegister):
            self.session, todo = self.session.reject(decided.code, decided.message)
        else:
            self.app = decided
            self.session, todo = self.session.accept(decided.id, now=self.desk.now())
            if self.session.state is State.DISCONNECTED:
                self.desk.forget(decided)
            self._watch()
        await self._do(todo)
        if self.app is not None:
            self.desk.apps.joined(self.app)

    # Out

    async def write(self, frame: Frame) -> None:
        """Write a frame, before messages that wait.

        Raises:
            ConnectionError: the client has left.
        """
        if self.lang is not None:
            frame = worded(frame, self.lang, self.desk.hub.translate, self.session.state)
        await self._outlet.write(self._put, frame)
        self.desk.metrics.sent(frame.type)

    async def send_message(self, frame: Frame) -> None:
        """Write a message to the application, in the order of messages.

        Raises:
            Retry: it is paused, or gone; nothing was written.
        """
        if self.app is None or not self.app.open:
            raise Retry(0.0, PAUSED, counted=False)
        try:
            await self._outlet.write(self._put, frame, message=True)
        except ConnectionError as error:
            raise Retry(0.0, "connection_lost") from error
        self.desk.metrics.sent(frame.type)

    def send_texts(self, texts: Sequence[bytes]) -> bool:
        """Write messages without waiting; False when they would have to."""
        if self.write_now is None or self._outlet.taken or not self.write_now(texts):
            return False
        self.desk.metrics.sent("message", len(texts))
        return True

    # Scheduling

    def start(self) -> bool:
        """Begin to schedule; False when it is not IDLE."""
        return self._starts(self.session.start())

    def pause(self, reason: PauseReason) -> bool:
        """Schedule no more, from now on; False when it is not RUNNING."""
        told = self._pauses(reason)
        if told is None:
            return False
        self.desk.spawn(self.answer(told))
        return True

    async def pause_now(self, reason: PauseReason) -> None:
        """The same, and return once the client has been told."""
        told = self._pauses(reason)
        if told is not None:
            await self.answer(told)

    def overloaded(self) -> None:
        """Pause until what is under way was taken."""
        told = self._pauses("overload")
        if told is not None:
            self.desk.spawn(self._recover(told))

    def _pauses(self, reason: PauseReason) -> Frame | None:
        self.session, todo = self.session.pause(reason)
        if not todo:
            return None
        self._schedule += 1
        if self.app is not None:
            self.app.unschedule()
        self._outlet.hold()
        frame = todo[0]
        assert isinstance(frame, Frame)
        return frame

    def _starts(self, step: Step) -> bool:
        self.session, todo = step
        if todo:
            self._schedule += 1
            self.desk.spawn(self._started(self._schedule))
        return bool(todo)

    async def _started(self, schedule: int) -> None:
        """Tell it, then let messages come, unless it was paused meanwhile."""
        await self.answer(wire.START)
        if schedule == self._schedule and self.app is not None:
            self.app.schedule()

    async def _recover(self, told: Frame) -> None:
        await self.answer(told)
        if self.app is not None:
            await self.app.all_acknowledged()
        self._starts(self.session.recover())

    async def answer(self, frame: Frame) -> None:
        """Write a frame to a client that may have left: what it said before that still counts."""
        with suppress(ConnectionError):
            await self.write(frame)

    # The end

    def close(self, code: int, reason: str) -> None:
        """End the connection; nothing when it has ended."""
        self.session, todo = self.session.close(code, reason)
        for each in todo:
            assert isinstance(each, Close)
            self._ended(each)

    async def close_now(self, code: int, reason: str) -> None:
        """The same, and return once it is closed."""
        self.session, todo = self.session.close(code, reason)
        if todo:
            self._leave(code)
            await self._end(code, reason)

    def gone(self, code: int | None) -> None:
        """The client has left."""
        self.session = self.session.leave()
        self._leave(code or GONE)

    def _ended(self, close: Close) -> None:
        self._leave(close.code)
        self.desk.spawn(self._end(close.code, close.reason))

    def _leave(self, code: int) -> None:
        if self.close_code is not None:
            return
        self.close_code = code
        self._schedule += 1
        if self._timer is not None:
            self._timer.cancel()
        if self.app is not None:
            self.app.unschedule()
            self.desk.forget(self.app)
        self.desk.left(self)

    # Deadlines

    def _watch(self) -> None:
        """Look again when the session's deadline will have passed, if nothing happens."""
        if self._timer is not None:
            self._timer.cancel()
        due_at = self.session.due_at
        clock = self.desk.hub.clock
        self._timer = None if due_at is None else clock.call_at(int(due_at * 1e6) + 1, self._look)

    def _look(self) -> None:
        now = self.desk.now()
        # While the hub is busy with it, the hub is slow and not the client.
        seen_at = now if self._busy and self.session.registered else self.seen_at
        self.session = msgspec.structs.replace(self.session, seen_at=seen_at)
        self.session, todo = self.session.expire(now=now)
        for each in todo:
            assert isinstance(each, Close)
            if each.code == HEARTBEAT_MISSED:
                self.desk.metrics.heartbeat_timeouts.inc()
            self._ended(each)
        if not todo:
            self._watch()
