"""What clients ask of the hub: to come in, to register, to say something, to acknowledge."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal, cast

import structlog

from hubbub import Envelope, Hub
from hubbub.envelope import CHAT_MESSAGE
from hubbub.errors import (
    HubError,
    InvalidError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from hubbub.values import Receipt, TaskResult
from hubbub_kenko import wire
from hubbub_kenko.app import App, WrittenApp
from hubbub_kenko.apps import NO_RUNNERS, Apps
from hubbub_kenko.chat import (
    PLATFORM,
    Dispatch,
    conversation_of,
    dispatch_of,
    task_result,
)
from hubbub_kenko.config import KenkoSettings
from hubbub_kenko.connection import Connection
from hubbub_kenko.history import History
from hubbub_kenko.metrics import KenkoMetrics
from hubbub_kenko.places import Places
from hubbub_kenko.session import SHUTDOWN, UNTRUSTED, Rules
from hubbub_kenko.wire import MAX_SUBSCRIPTIONS, Ack, BadRegister, Message, Register

__all__ = ["Desk", "Render"]

Render = Callable[[str, Mapping[str, Any], str], str]
"""Finds the words for a key, its arguments and a language."""


class NotYoursError(HubError):
    """An answer to a task that is somebody else's, or nobody's."""

    code = "no_route"


_CODES: Final[tuple[tuple[tuple[type[HubError], ...], str], ...]] = (
    ((NotYoursError,), "no_route"),
    ((RateLimitedError,), "rate_limited"),
    ((InvalidError, TooLargeError), "bad_data"),
    ((UnavailableError,), "unavailable"),
)
"""What an application is told when its message is refused."""

_WHY: Final = {
    "no_endpoint": "nobody it could go to is here",
    "no_origin": "what it answers is not known",
}
"""Why a message went nowhere, in words; else no route takes it."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Desk:
    """The rooms behind all connections of one hub.

    Attributes:
        render: Finds the words of messages that have a `key`; None sends the key itself.
        connections: Clients that are connected, registered or not.
        draining: The hub stops; nobody registers any more.
    """

    def __init__(
        self,
        hub: Hub,
        settings: KenkoSettings,
        *,
        apps: Apps,
        history: History,
        metrics: KenkoMetrics,
    ) -> None:
        self.hub: Final = hub
        self.settings: Final = settings
        self.apps: Final = apps
        self.metrics: Final = metrics
        self.render: Render | None = None
        self.connections: Final[set[Connection]] = set()
        self.draining = False
        self.now_us: Final = hub.clock.now_us
        self._history = history
        self._places = Places()
        self._token = settings.access_token.reveal().encode()
        self._refused = hub.metrics.frames_refused
        self._registering = 0

    def now(self) -> float:
        """Return the hub's time, in seconds."""
        return self.now_us() / 1e6

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside."""
        self.hub.spawn(work)

    def rules(self, transport: Literal["websocket", "socketio"]) -> Rules:
        """Return what holds for a client."""
        settings = self.settings
        socketio = transport == "socketio"
        silence_s = settings.heartbeat_interval + settings.heartbeat_grace
        return Rules(
            auto_start=settings.auto_start,
            silence_s=0.0 if socketio else silence_s,
            register_s=settings.register_timeout,
            heartbeat_reply=settings.heartbeat_reply,
            socketio=socketio,
        )

    # Coming and going

    @property
    def full(self) -> bool:
        """Whether there is no place for one client more."""
        return len(self.connections) >= self.settings.max_clients

    def may_enter(self, token: str | None, *, local: bool) -> bool:
        """Tell whether somebody with this token may connect; in constant time.

        Args:
            local: Whether the request is local (`hubbub.web.is_local`): it needs none while there
                is none.
        """
        if not self._token:
            return local or self.settings.open
        return hmac.compare_digest((token or "").encode(), self._token)

    @property
    def wrong_token(self) -> str:
        """What is said to a client that may not enter."""
        if self._token:
            return "the access token is missing or wrong"
        return (
            "without an access token only local clients may connect; an operator may set "
            "adapters.kenko.access_token, or adapters.kenko.open = true"
        )

    async def change_token(self, token: str) -> None:
        """Ask for another access token from here on; whoever came with the old one leaves."""
        self._token = token.encode()
        if token:
            reason = "the access token has changed"
            connections = list(self.connections)
            await asyncio.gather(*(one.close_now(UNTRUSTED, reason) for one in connections))

    def wrong(self, kind: str, peer: str | None) -> float:
        """Count a token that was wrong; returns seconds to wait after too many, else 0."""
        return self.hub.auth_failures.count(kind, peer)

    def entered(self, connection: Connection) -> None:
        """Note a client that has connected."""
        self.connections.add(connection)

    def left(self, connection: Connection) -> None:
        """Note that it has left."""
        self.connections.discard(connection)

    async def pause_all(self) -> None:
        """Tell everybody that the hub stops."""
        self.draining = True
        connections = list(self.connections)
        await asyncio.gather(*(one.pause_now("shutdown") for one in connections))

    async def close_all(self) -> None:
        """Close all connections."""
        connections = list(self.connections)
        reason = "the hub stops"
        await asyncio.gather(*(one.close_now(SHUTDOWN, reason) for one in connections))

    # Registering

    async def decide(
        self, connection: Connection, register: Register, token: str | None
    ) -> App | BadRegister:
        """Let a client become an application, or say why not.

        Args:
            token: Access token that came with the registration, beside that of the handshake.
        """
        decided = await self._decided(connection, register, token)
        result = decided.code if isinstance(decided, BadRegister) else "success"
        self.metrics.registers[result].inc()
        return decided

    async def _decided(
        self, connection: Connection, register: Register, token: str | None
    ) -> App | BadRegister:
        if self.draining:
            return BadRegister("shutting_down", "the hub is stopping; connect again soon")
        if connection.must_show_token and not self.may_enter(token, local=False):
            wrong = BadRegister("unauthorized", self.wrong_token)
            return self._counted(wrong, "kenko_token", connection) if token else wrong
        if "runner" in register.capabilities:
            admits = self.apps.admits_runner
            refusal = NO_RUNNERS if admits is None else admits(register)
            if refusal is NO_RUNNERS and register.join_token:
                return self._counted(NO_RUNNERS, "runner_token", connection)
            if refusal is not None:
                return refusal
        most = self.settings.max_apps
        if most is not None and len(self.apps) + self._registering >= most:
            return BadRegister("too_many_apps", f"there are {most} applications, the limit")
        self._registering += 1
        try:
            return await self._registered(connection, register)
        except InvalidError as error:
            return BadRegister("invalid_data", error.message)
        except HubError as error:
            log.warning("kenko.not_registered", name=register.name, error=str(error))
            return BadRegister("internal", "the hub cannot register anybody now")
        finally:
            self._registering -= 1

    def _counted(self, refusal: BadRegister, kind: str, connection: Connection) -> BadRegister:
        """Count a wrong token, and say so where there were too many."""
        wait_s = self.wrong(kind, connection.peer)
        if not wait_s:
            return refusal
        message = f"too many wrong tokens came from this address; wait {math.ceil(wait_s)} s"
        return BadRegister(refusal.code, message)

    async def _registered(self, connection: Connection, register: Register) -> App:
        """Make a client an application.

        Raises:
            HubError: the hub cannot have it.
        """
        # Written without waiting where that is evidence enough, and the socket tells its room.
        written = connection.write_now is not None and "ack" not in register.capabilities
        kind = WrittenApp if written else App
        app = kind(f"app_{secrets.token_hex(16)}", register, connection, self.settings)
        for pattern in register.subscribe or ():
            await self.hub.subscribe(app, pattern, limit=MAX_SUBSCRIPTIONS)
        app.link = await self.hub.attach_for_good(app)
        self.apps.add(app)
        self._history.joined(app.row())
        return app

    def forget(self, app: App) -> None:
        """An application has left: its endpoint is away, and soon gone."""
        if app.link is not None:
            app.link.close()
        if self.apps.find(app.id) is not None:
            self.apps.remove(app)
            self.spawn(self._history.changed(app.row()))

    # Messages

    def dispatch(self, envelope: Envelope, *, lang: str, segments: bool) -> Dispatch:
        """Return what an application gets of an envelope, and remember where that came from.

        The work is done once per envelope, however many applications get it.
        """
        known = cast("dict[object, Dispatch]", envelope.__dict__)
        key = (PLATFORM, lang, segments)
        sent = known.get(key)
        if sent is None:
            sent = known[key] = dispatch_of(envelope, lang=lang, segments=segments)
            self._places.remember(envelope.id, sent)
        return sent

    def say(self, app: App, message: Message) -> Coroutine[Any, Any, None] | None:
        """Publish what an application says, or end the task it answers.

        Returns:
            What remains to be done; None where nothing is to be waited for.
        """
        if message.reply_to is not None:  # an answer is looked up first, which may take a while
            return self._answer(app, message, message.reply_to)
        outcome: list[Receipt | HubError] = []
        try:
            envelope = self._envelope(app, message)
        except HubError as error:
            return self._refuse(app, message, error)
        publishing = self.hub.publish_soon(
            envelope, principal=app.principal, done=outcome.append
        )  # fmt: skip
        if publishing is not None:
            return self._published(app, message, publishing, outcome)
        return self._told(app, message, outcome[0])

    async def _answer(self, app: App, message: Message, ref: str) -> None:
        """Publish an answer, or end the task that it is the result of."""
        try:
            if ref in app.tasks:
                await self._finish(app, message, ref)
                return
            envelope = self._envelope(app, message)
            outcome: Receipt | HubError = await self.hub.publish(envelope, principal=app.principal)
        except HubError as error:
            outcome = error
        rest = self._told(app, message, outcome)
        if rest is not None:
            await rest

    async def _published(
        self,
        app: App,
        message: Message,
        publishing: asyncio.Future[Any],
        outcome: list[Receipt | HubError],
    ) -> None:
        """Wait until a message is safe; who leaves meanwhile does not end that."""
        await asyncio.wait((publishing,))
        rest = self._told(app, message, outcome[0]) if outcome else None
        if rest is not None:
            await rest

    def _told(
        self, app: App, message: Message, outcome: Receipt | HubError
    ) -> Coroutine[Any, Any, None] | None:
        """Return what is to be said of a message; None for nothing."""
        if isinstance(outcome, HubError):
            return self._refuse(app, message, outcome)
        if outcome.outcome == "accepted":
            return None
        text = f"nobody takes this message: {_WHY.get(outcome.reason or '', 'no route takes it')}"
        return self._tell(app, message, "no_route", text)

    async def _refuse(self, app: App, message: Message, error: HubError) -> None:
        """Tell an application what is wrong with its message.

        Raises:
            HubError: it is not the message that is wrong.
        """
        for kinds, code in _CODES:
            if isinstance(error, kinds):
                await self._tell(app, message, code, error.message)
                return
        raise error

    async def _tell(self, app: App, message: Message, code: str, text: str) -> None:
        self.refused(code)
        await app.answer(wire.error(code, text, message.reply_to))

    def _envelope(self, app: App, message: Message) -> Envelope:
        """Return a message as an envelope: for its target, else for where `reply_to` came from."""
        ref, target = message.reply_to, message.target
        asked = self._places.find(ref)
        conversation = None if asked is None else asked.conversation
        to: tuple[str, ...] = ()
        if target is not None:
            conversation = conversation_of(target) or conversation
            address = self._places.address_of(target)
            to = () if address is None else (address,)
            elsewhere = target.adapter not in (None, *(asked.adapters if asked else ()))
            if address is None and elsewhere:
                ref = None  # said for other people than who asked: routes may know where they are
        return Envelope(
            source=app.address,
            subject=app.subject,
            type=CHAT_MESSAGE,
            data=app.speaker.says(message, self._text(app, message), conversation),
            key=None if conversation is None else conversation.id,
            in_reply_to=ref,
            to=to,
            traceparent="" if asked is None else asked.traceparent,
        )

    def _text(self, app: App, message: Message) -> str:
        if message.content is not None:
            return message.content
        key = message.key or ""
        if self.render is None:
            return key
        asked = self._places.find(message.reply_to)
        asked_in = app.register.lang if asked is None else asked.lang
        return self.render(key, message.args, message.lang or asked_in)

    async def _finish(self, app: App, message: Message, ref: str) -> None:
        """End the task that a message answers; a late answer is kept by the hub as such."""
        answer = task_result(self._text(app, message))
        result = TaskResult(app.tasks[ref], "completed", answer)
        finished = await self.hub.work.finish(result, by=app.address)
        app.tasks.pop(ref, None)
        app.acknowledge(ref)
        if finished.verdict in ("unknown", "stranger"):
            raise NotYoursError(f"the task that message {ref!r} asked for is not yours")

    async def acknowledge(self, app: App, ack: Ack) -> None:
        """Take an acknowledgement; one that nobody waits for is ignored."""
        if app.acknowledge(ack.id, rejected=None if ack.ok else (ack.error or "rejected")):
            await asyncio.sleep(0)  # the delivery ends before the client can be seen to leave

    def refused(self, code: str) -> None:
        """Count something of a client's that could not be used."""
        self._refused["kenko", code].inc()
        self.metrics.dropped[code].inc()
