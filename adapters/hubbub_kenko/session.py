"""The four states of a client, as values. Pure; times are seconds of one clock.

A frame and the time go in, a new session and what is to be done come out.

| from | trigger | to |
|---|---|---|
| CONNECTED | registration accepted | IDLE, and RUNNING at once with `auto_start` |
| IDLE | `start` | RUNNING |
| RUNNING | `pause` | IDLE |
| any | `leave`, or a deadline | DISCONNECTED |

Source: protocols page, sections 2, 3.4 and 4; the numbers are the original's.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal

import msgspec

from hubbub_kenko import wire
from hubbub_kenko.wire import (
    Ack,
    Auth,
    BadRegister,
    Frame,
    FrameError,
    Heartbeat,
    Inbound,
    Message,
    Ping,
    Refusal,
    Register,
    RunnerOutput,
    RunnerResult,
    Unknown,
)

__all__ = [
    "ABUSE",
    "ABUSE_FRAMES",
    "ABUSE_S",
    "HEARTBEAT_MISSED",
    "NOT_REGISTERED",
    "OVERLOADED",
    "REMOVED",
    "REPLACED",
    "SHUTDOWN",
    "TOO_LARGE",
    "UNREADABLE",
    "UNTRUSTED",
    "Close",
    "PauseReason",
    "Rules",
    "Session",
    "State",
    "Step",
    "Todo",
]

SHUTDOWN: Final = 1001
UNREADABLE: Final = 1003
TOO_LARGE: Final = 1009
OVERLOADED: Final = 1013
NOT_REGISTERED: Final = 4001
HEARTBEAT_MISSED: Final = 4002
ABUSE: Final = 4003
REMOVED: Final = 4004
REPLACED: Final = 4009
UNTRUSTED: Final = 4401
"""The access token is another one now. Ours; the originals have none such."""

ABUSE_FRAMES: Final = 10
"""So many frames that are no JSON objects, within `ABUSE_S` seconds, end the connection."""

ABUSE_S: Final = 60.0

PauseReason = Literal["admin", "overload", "shutdown", "error"]


class State(IntEnum):
    """What a client is to the hub. Source: the seed README, with the original's numbers."""

    DISCONNECTED = 0
    CONNECTED = 1
    IDLE = 2
    RUNNING = 3


class Close(msgspec.Struct, frozen=True, gc=False):
    """The hub ends the connection."""

    code: int
    reason: str


class Rules(msgspec.Struct, frozen=True, gc=False):
    """What holds for a client.

    Attributes:
        silence_s: How long it may be silent once registered; 0 for ever (Socket.IO, where
            Engine.IO looks after that).
    """

    auto_start: bool = True
    silence_s: float = 45.0
    register_s: float = 30.0
    heartbeat_reply: bool = False
    socketio: bool = False


Todo = Frame | Message | Ack | RunnerResult | RunnerOutput | Register | Auth | Close
"""To be written (`Frame`), acted upon, decided (`Register`, `Auth`), or the end (`Close`)."""

Step = tuple["Session", tuple[Todo, ...]]


class Session(msgspec.Struct, frozen=True, gc=False):
    """One client, as a value. Every change returns a new one, and what is to be done, in order.

    Attributes:
        seen_at: When it was last heard.
        deciding: Its registration is being decided.
        by_auth: It registers, or has registered, by the event `auth`.
        paused_for: Why it is IDLE after having been RUNNING.
        bad_at: When it sent frames that are no JSON objects, the last few.
    """

    rules: Rules
    opened_at: float
    seen_at: float
    state: State = State.CONNECTED
    deciding: bool = False
    by_auth: bool = False
    paused_for: PauseReason | None = None
    bad_at: tuple[float, ...] = ()

    @classmethod
    def open(cls, rules: Rules, *, now: float) -> Session:
        """Return the session of a client that has just connected."""
        return cls(rules, now, now)

    # What the client does

    def receive(self, frame: Inbound, *, now: float) -> Step:
        """Take one frame; any frame shows that the client is alive."""
        if self.state is State.DISCONNECTED:
            return self, ()
        return msgspec.structs.replace(self, seen_at=now).take(frame)

    def take(self, frame: Inbound) -> Step:
        """Take one frame, whenever it came."""
        match frame:
            case Message():
                return self._message(frame)
            case Ack():
                return self._ack(frame)
            case Heartbeat():
                return self, (wire.HEARTBEAT,) if self.rules.heartbeat_reply else ()
            case Ping(bare):
                return self, (wire.BARE_PONG if bare else wire.PONG,)
            case Register() | BadRegister():
                return self._register(frame)
            case Auth():
                return self._auth(frame)
            case RunnerResult() | RunnerOutput():
                return self, (frame,) if self.registered else ()
            case Unknown():
                return self, ()

    def refuse(self, failed: FrameError, *, now: float) -> Step:
        """Take a frame that could not be read."""
        if self.state is State.DISCONNECTED:
            return self, ()
        session = msgspec.structs.replace(self, seen_at=now)
        if failed.code == "bad_data" and not self.registered:
            return session, (_not_registered(failed.ref),)
        told = wire.error(failed.code, failed.message, failed.ref)
        if failed.code != "bad_json":
            return session, (told,)
        bad_at = (*(at for at in self.bad_at if at > now - ABUSE_S), now)
        session = msgspec.structs.replace(session, bad_at=bad_at)
        if len(bad_at) < ABUSE_FRAMES:
            return session, (told,)
        gone, close = session.close(ABUSE, f"{ABUSE_FRAMES} frames that are no JSON objects")
        return gone, (told, *close)

    def leave(self) -> Session:
        """The client is gone."""
        return msgspec.structs.replace(self, state=State.DISCONNECTED)

    def _message(self, frame: Message) -> Step:
        if self.state is State.RUNNING:
            return self, (frame,)
        if self.state is not State.IDLE:
            return self, (_not_registered(frame.reply_to),)
        told = f"message refused in state {self.state.name}"
        return self, (wire.error("not_running", told, frame.reply_to),)

    def _ack(self, frame: Ack) -> Step:
        return self, (frame,) if self.registered else (_not_registered(frame.id),)

    def _register(self, frame: Register | BadRegister) -> Step:
        """A second one is ignored completely, also while the first is being decided."""
        if self.state is not State.CONNECTED or self.deciding:
            return self, ()
        if isinstance(frame, BadRegister):
            return self, (wire.refused(frame.code, frame.message),)
        return msgspec.structs.replace(self, deciding=True, by_auth=False), (frame,)

    def _auth(self, frame: Auth) -> Step:
        """A second one is answered, with false."""
        if self.state is not State.CONNECTED or self.deciding:
            return self, (wire.auth_reply(False),)
        if isinstance(frame.register, BadRegister):
            bad = frame.register
            return self, (wire.auth_reply(False), wire.refused(bad.code, bad.message))
        return msgspec.structs.replace(self, deciding=True, by_auth=True), (frame,)

    # What the hub does

    @property
    def registered(self) -> bool:
        """Whether it is an application."""
        return self.state in (State.IDLE, State.RUNNING)

    def accept(self, app_id: str, *, now: float) -> Step:
        """Its registration was accepted; nothing when it has left meanwhile."""
        if not self.deciding or self.state is not State.CONNECTED:
            return self, ()
        session = msgspec.structs.replace(self, state=State.IDLE, deciding=False, seen_at=now)
        todo: tuple[Todo, ...] = (wire.registered(app_id),)
        if self.by_auth:
            todo = (wire.auth_reply(True), *todo)
        if not self.rules.auto_start:
            return session, todo
        running, start = session.start()
        return running, (*todo, *start)

    def reject(self, code: Refusal, message: str) -> Step:
        """Its registration was refused; another one is allowed."""
        if not self.deciding or self.state is not State.CONNECTED:
            return self, ()
        session = msgspec.structs.replace(self, deciding=False)
        told = wire.refused(code, message)
        return session, (wire.auth_reply(False), told) if self.by_auth else (told,)

    def start(self) -> Step:
        """Begin to schedule; nothing unless it is IDLE."""
        if self.state is not State.IDLE:
            return self, ()
        return msgspec.structs.replace(self, state=State.RUNNING, paused_for=None), (wire.START,)

    def pause(self, reason: PauseReason) -> Step:
        """Schedule no more; nothing unless it is RUNNING."""
        if self.state is not State.RUNNING:
            return self, ()
        session = msgspec.structs.replace(self, state=State.IDLE, paused_for=reason)
        return session, (wire.pause(reason),)

    def recover(self) -> Step:
        """It has taken what was under way: start again, if it was paused for that alone."""
        return self.start() if self.paused_for == "overload" else (self, ())

    def close(self, code: int, reason: str) -> Step:
        """End the connection; nothing when it has ended."""
        if self.state is State.DISCONNECTED:
            return self, ()
        return self.leave(), (Close(code, reason),)

    # Deadlines

    @property
    def due_at(self) -> float | None:
        """When it is to be closed unless something happens; None for never."""
        if self.state is State.CONNECTED:
            return self.opened_at + self.rules.register_s
        if self.registered and self.rules.silence_s:
            return self.seen_at + self.rules.silence_s
        return None

    def expire(self, *, now: float) -> Step:
        """Close it if a deadline has passed."""
        due_at = self.due_at
        if due_at is None or now < due_at:
            return self, ()
        if self.state is State.CONNECTED:
            return self.close(NOT_REGISTERED, "not registered in time")
        return self.close(HEARTBEAT_MISSED, "no heartbeat in time")


def _not_registered(ref: str | None) -> Frame:
    return wire.error("not_registered", "register first", ref)
