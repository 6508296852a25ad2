"""What clients ask of the hub: to come in, to register, to say something, to acknowledge."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal, cast

import structlog

from hubbub import Envelope, Hub
from hubbub.envelope import CHAT_MESSAGE, encode_json
from hubbub.errors import (
    HubError,
    InvalidError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from hubbub.values import TaskResult
from hubbub_kenko import wire
from hubbub_kenko.app import App, WrittenApp
from hubbub_kenko.apps import Apps
from hubbub_kenko.chat import (
    PLATFORM,
    Conversation,
    Dispatch,
    conversation_of,
    dispatch_of,
    said,
    task_result,
)
from hubbub_kenko.config import KenkoSettings
from hubbub_kenko.connection import Connection
from hubbub_kenko.history import History
from hubbub_kenko.metrics import KenkoMetrics
from hubbub_kenko.places import Places
from hubbub_kenko.session import SHUTDOWN, Rules
from hubbub_kenko.wire import MAX_SUBSCRIPTIONS, Ack, BadRegister, Message, Register

__all__ = ["Desk", "Render"]

Render = Callable[[str, Mapping[str, Any], str], str]
"""Finds the words for a key, its arguments and a language."""

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

    def may_enter(self, token: str | None) -> bool:
        """Tell whether somebody with this token may connect; in constant time."""
        return not self._token or hmac.compare_digest((token or "").encode(), self._token)

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
        if connection.must_show_token and not self.may_enter(token):
            return BadRegister("unauthorized", "the access token is missing or wrong")
        if "runner" in register.capabilities:
            admits = self.apps.admits_runner
            if admits is None or not admits(register.join_token):
                return BadRegister("unauthorized", "the join token of this runner is not valid")
        # Written without waiting where that is evidence enough, and the socket tells its room.
        written = connection.write_now is not None and "ack" not in register.capabilities
        kind = WrittenApp if written else App
        app = kind(f"app_{secrets.token_hex(16)}", register, connection, self.settings)
        try:
            for pattern in register.subscribe or ():
                await self.hub.subscribe(app, pattern, limit=MAX_SUBSCRIPTIONS)
            app.link = await self.hub.attach_for_good(app)
        except InvalidError as error:
            return BadRegister("invalid_data", error.message)
        except HubError as error:
            log.warning("kenko.not_registered", name=register.name, error=str(error))
            return BadRegister("internal", "the hub cannot register anybody now")
        self.apps.add(app)
        await self._history.joined(app.row())
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

    async def say(self, app: App, message: Message) -> None:
        """Publish what an application says, or end the task it answers."""
        try:
            if message.reply_to is not None and message.reply_to in app.tasks:
                problem = await self._finish(app, message, message.reply_to)
            else:
                problem = await self._publish(app, message)
        except RateLimitedError as error:
            problem = ("rate_limited", error.message)
        except (InvalidError, TooLargeError) as error:
            problem = ("bad_data", error.message)
        except UnavailableError as error:
            problem = ("unavailable", error.message)
        if problem is not None:
            code, text = problem
            self.refused(code)
            await app.answer(wire.error(code, text, message.reply_to))

    async def _publish(self, app: App, message: Message) -> tuple[str, str] | None:
        receipt = await self.hub.publish(self._envelope(app, message), principal=app.principal)
        if receipt.outcome == "accepted":
            return None
        return "no_route", f"nobody takes this message ({receipt.reason})"

    def _envelope(self, app: App, message: Message) -> Envelope:
        """Return a message as an envelope: for its target, else for where `reply_to` came from."""
        conversation: Conversation | None = None
        to: tuple[str, ...] = ()
        if message.reply_to is not None:
            conversation = self._places.conversation_of(message.reply_to)
        if message.target is not None:
            conversation = conversation_of(message.target) or conversation
            address = self._places.address_of(message.target)
            to = () if address is None else (address,)
        text = self._text(app, message)
        data = said(message, text, app_id=app.id, app=app.register, conversation=conversation)
        return Envelope(
            source=app.address,
            subject=app.subject,
            type=CHAT_MESSAGE,
            data=encode_json(data),
            key=None if conversation is None else conversation.id,
            in_reply_to=message.reply_to,
            to=to,
        )

    def _text(self, app: App, message: Message) -> str:
        if message.content is not None:
            return message.content
        key = message.key or ""
        if self.render is None:
            return key
        asked_in = self._places.lang_of(message.reply_to)
        return self.render(key, message.args, message.lang or asked_in or app.register.lang)

    async def _finish(self, app: App, message: Message, ref: str) -> tuple[str, str] | None:
        """End the task that a message answers; a late answer is kept by the hub as such."""
        result = TaskResult(
            app.tasks[ref], "completed", task_result(self._text(app, message))
        )  # fmt: skip
        finished = await self.hub.work.finish(result, by=app.address)
        app.tasks.pop(ref, None)
        app.acknowledge(ref)
        if finished.verdict in ("unknown", "stranger"):
            return "no_route", f"the task that message {ref!r} asked for is not yours"
        return None

    async def acknowledge(self, app: App, ack: Ack) -> None:
        """Take an acknowledgement; one that nobody waits for is ignored."""
        if app.acknowledge(ack.id, rejected=None if ack.ok else (ack.error or "rejected")):
            await asyncio.sleep(0)  # the delivery ends before the client can be seen to leave

    def refused(self, code: str) -> None:
        """Count something of a client's that could not be used."""
        self._refused["kenko", code].inc()
        self.metrics.dropped[code].inc()
