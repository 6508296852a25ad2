"""Family S: Socket.IO, namespace `/client`, event `auth`; python-socketio speaks the protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import socketio
from engineio.exceptions import EngineIOError
from socketio.exceptions import ConnectionRefusedError as RefusedError
from socketio.exceptions import SocketIOError
from starlette.types import Message, Receive, Scope, Send

from hubbub.envelope import encode_json
from hubbub.errors import HubError, TooLargeError
from hubbub.web import (
    UnreadBodyError,
    is_local,
    parse_query,
    peer_of,
    read_body,
    status_of,
)
from hubbub_kenko import wire
from hubbub_kenko.connection import GONE, Connection
from hubbub_kenko.desk import Desk
from hubbub_kenko.engine import GONE_ERRORS, Server
from hubbub_kenko.handshakes import Handshakes
from hubbub_kenko.session import NOT_REGISTERED, OVERLOADED
from hubbub_kenko.sockets import NO_PLACE, UNAVAILABLE, deny, token_of
from hubbub_kenko.wire import Frame, FrameError
from hubbub_kenko.wire.polling import PayloadError, RoomError, read_payload
from hubbub_kenko.wording import preferred

__all__ = ["MAX_UNREAD", "NAMESPACE", "Events"]

NAMESPACE: Final = "/client"
PING_INTERVAL_S: Final = 25
PING_TIMEOUT_S: Final = 20

MAX_UNREAD: Final = 1000
"""Frames that may wait for a client that does not read before it is disconnected."""

CLOSE_S: Final = 1.0

POST_S: Final = 30.0
"""How long packets that are posted may take, all together."""

_FRAMING: Final = (b"content-length", b"transfer-encoding")

_quiet = logging.getLogger("hubbub_kenko.socketio")
_quiet.setLevel(logging.CRITICAL)  # garbage of clients is counted, not dumped into the log


class EventConnection(Connection):
    """A client of family S."""

    transport = "socketio"

    def __init__(self, desk: Desk, server: Any, sid: str, scope: Scope) -> None:  # noqa: ANN401
        client = scope.get("client") or ("", 0)
        remote = f"{client[0]}:{client[1]}"
        lang = preferred(scope["headers"])
        super().__init__(desk, desk.rules("socketio"), remote=remote, lang=lang)
        token = token_of(scope)
        self.must_show_token = not desk.may_enter(token, local=is_local(scope))
        if self.must_show_token and token:  # it may still show a good one when it registers
            desk.wrong("kenko_token", peer_of(scope))
        self.sid: Final = sid
        self._server = server
        self.engine_sid: Final[str] = server.manager.eio_sid_from_sid(sid, NAMESPACE)

    async def _put(self, frame: Frame) -> None:
        event, data = wire.event_of(frame)
        queue = self._queue()
        if queue.qsize() >= MAX_UNREAD:
            self.close(OVERLOADED, "it does not read")
            raise ConnectionError("the client does not read")
        try:
            await self._server.emit(event, data, to=self.sid, namespace=NAMESPACE)
        except (EngineIOError, SocketIOError) as error:
            raise ConnectionError("the client has left") from error
        if event == "message":  # only what waits for a slot may wait for the client, too
            await queue.join()

    def _queue(self) -> asyncio.Queue[Any]:
        """Return what waits to be written to the client, or to be polled by it."""
        socket = self._server.eio.sockets.get(self.engine_sid)
        if socket is None or socket.closed:
            raise ConnectionError("the client has left")
        queue: asyncio.Queue[Any] = socket.queue
        return queue

    async def _end(self, code: int, reason: str) -> None:
        """Disconnect it; Socket.IO has no close codes, its WebSocket has."""
        with suppress(*GONE_ERRORS):  # it has gone by itself, or does not read
            async with asyncio.timeout(CLOSE_S):
                await self._server.disconnect(self.sid, namespace=NAMESPACE)
        await self._server.end(self.engine_sid, code, reason)


class Events:
    """The Socket.IO server of one running adapter."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._by_sid: dict[str, EventConnection] = {}
        self._handshakes: Final = Handshakes(
            desk, is_registered=self._is_registered, expire=self._expire
        )
        self._server: Final = Server(
            max_bytes=desk.settings.max_message_bytes,
            refuses=self._refuses,
            dropped=desk.refused,
            began=self._handshakes.begin,
            ended=self._handshakes.end,
            async_mode="asgi",
            async_handlers=False,  # in order, and no task for each
            cors_allowed_origins=[],  # the hub has looked at origins already, and tells them so
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            logger=_quiet,
            engineio_logger=_quiet,
        )
        self._server.on("connect", self._connect, namespace=NAMESPACE)
        self._server.on("disconnect", self._disconnect, namespace=NAMESPACE)
        self._server.on("*", self._event, namespace=NAMESPACE)
        self.app: Final[Callable[..., Any]] = socketio.ASGIApp(
            self._server, socketio_path=desk.settings.socketio_path
        )

    @property
    def max_bytes(self) -> int:
        """Bytes of one post."""
        return self._desk.settings.max_message_bytes

    def read_payload(self, query: bytes, body: bytes) -> bytes:
        """Return a body that was posted, all of which will be taken.

        Raises:
            PayloadError: some of it would not be.
            TooLargeError: an event is over the limit with attachments that came before.
        """
        sids = [value for name, value in parse_query(query) if name == "sid"]
        sid = sids[0] if sids else ""  # of none and of an unknown one the library says so
        if sid not in self._server.eio.sockets:
            return body
        awaited, room_bytes = self._server.awaited(sid)
        try:
            return read_payload(
                body,
                connected=lambda namespace: self._server.is_connected(sid, namespace),
                awaited=awaited,
                room_bytes=room_bytes,
            )
        except RoomError as error:
            self._server.forget(sid)
            raise TooLargeError(
                what="an event with its attachments",
                size_bytes=None,
                limit_bytes=self.max_bytes,
                setting="adapters.kenko.max_message_bytes",
            ) from error

    async def stop(self) -> None:
        """End what the server does beside, and those who are no clients yet."""
        self._handshakes.close()
        await self._server.shutdown()

    async def _refuses(self, scope: Scope, send: Send) -> bool:
        """Answer a handshake for which there is no place; tell whether it was."""
        if not (self._desk.draining or self._desk.full):
            return False
        if scope["type"] == "websocket":
            await deny(scope, send, UNAVAILABLE, NO_PLACE)
        else:
            await _refuse(send, UNAVAILABLE, PayloadError(NO_PLACE))
        return True

    def _is_registered(self, engine_sid: str) -> bool:
        sid = self._server.manager.sid_from_eio_sid(engine_sid, NAMESPACE)
        connection = self._by_sid.get(sid)
        return connection is not None and connection.session.registered

    async def _expire(self, engine_sid: str) -> None:
        await self._server.end(engine_sid, NOT_REGISTERED, "not registered in time")

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        del auth  # nothing is asked for here
        desk = self._desk
        if desk.draining:
            raise RefusedError(NO_PLACE)
        connection = EventConnection(desk, self._server, sid, environ["asgi.scope"])
        self._by_sid[sid] = connection
        self._handshakes.join(connection.engine_sid)
        desk.entered(connection)

    async def _disconnect(self, sid: str, reason: object = None) -> None:
        del reason
        connection = self._by_sid.pop(sid, None)
        if connection is not None:
            connection.gone(GONE)
            self._handshakes.begin(connection.engine_sid)  # until it is known to be over

    async def _event(self, event: str, sid: str, *arguments: object) -> None:
        """Take one event; what cannot be read is answered, never raised."""
        connection = self._by_sid.get(sid)
        if connection is None:
            return
        argument = arguments[0] if arguments else None
        received = self._desk.metrics.received
        try:
            inbound: wire.Inbound
            data = _encoded(argument)
            if event == "auth":
                inbound = wire.read_auth(argument, session_id=sid)
            else:
                inbound = wire.read_event(event, data)
            received(inbound.kind)
            await connection.receive(inbound)
        except FrameError as failed:
            received("unreadable")
            await connection.refuse(failed)


class EventsPath:
    """What is served below the Socket.IO path: the server of now."""

    def __init__(self, events: Callable[[], Events | None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        events = self._events()
        # Engine.IO has a rule of its own for origins; it may not refuse what the hub lets pass.
        scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"origin"]}
        if events is not None and scope.get("method") == "POST":
            await self._post(events, scope, receive, send)
        elif events is not None:
            await events.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1013})
        else:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b"not running"})

    async def _post(self, events: Events, scope: Scope, receive: Receive, send: Send) -> None:
        """Take packets of the polling transport, all of them or none."""
        try:
            body = await read_body(
                scope, receive, events.max_bytes, setting="adapters.kenko.max_message_bytes"
            )
            body = events.read_payload(scope["query_string"], body)
        except HubError as error:
            await _refuse(
                send, status_of(error) if isinstance(error, TooLargeError) else 400, error
            )
            return
        # The library reads as much as Content-Length says, which need not be there.
        headers = [one for one in scope["headers"] if one[0] not in _FRAMING]
        headers.append((b"content-length", b"%d" % len(body)))
        try:
            async with asyncio.timeout(POST_S):
                await events.app({**scope, "headers": headers}, _given(body), send)
        except TimeoutError:
            await _refuse(send, 400, PayloadError("the packets took too long; some were taken"))
        except (KeyError, NameError):  # the session ended before, or of this; it does not look
            await _refuse(send, 400, PayloadError("the session is over"))


def _given(body: bytes) -> Receive:
    """Return a body that was read, as an application receives it."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _refuse(send: Send, status: int, error: HubError) -> None:
    """Answer as python-engineio does: a JSON string."""
    headers = [(b"content-type", b"text/plain")]
    if isinstance(error, UnreadBodyError):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": encode_json(error.message)})


def _encoded(argument: object) -> msgspec.Raw:
    """Return the argument of an event as JSON.

    Raises:
        FrameError: it has half of a surrogate pair, no number of JSON, or is nested too deep.
    """
    try:
        return msgspec.Raw(encode_json(argument))
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError("bad_json", f"the data cannot be read: {error}") from error
