"""The hub's own endpoint protocol over WebSocket: `/api/v1/stream`, endpoints `stream.<name>`.

One connection is one endpoint with private routes for what it subscribed. A durable one keeps its
mailbox and its subscriptions while it is away.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from starlette.types import Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import TASK_REQUEST, TASK_RESULT, Envelope, encode_json
from hubbub.errors import ConflictError, HubError, InvalidError, Reject, Retry
from hubbub.intake import check_text
from hubbub.listeners.http import WRITE_TEXTS
from hubbub.ports import Link
from hubbub.subjects import check_pattern, escape
from hubbub.tasks import read_request, read_result
from hubbub.times import parse_duration
from hubbub.values import Endpoint, Principal, Receipt
from hubbub.web import frames
from hubbub.web.api.stream import patterns_for
from hubbub.web.auth import authenticated
from hubbub.web.forms import Given, read_forms
from hubbub.web.problems import problem_of, status_of

__all__ = ["StreamSockets"]

NEWER: Final = 4009
"""Close code of a connection whose name another one has taken."""

GOING_AWAY: Final = 1012
MAX_CONCURRENCY: Final = 1000
MAX_SUBSCRIPTIONS: Final = 1000
MAX_REQUESTS: Final = 100
"""Publishes and requests of one connection under way at once."""

Write = Callable[[bytes], Coroutine[Any, Any, None]]
Publishing = Callable[[], Awaitable[Receipt]]
WriteNow = Callable[[Sequence[bytes]], bool]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client asked for in the query."""

    name: str
    subjects: tuple[str, ...]
    labels: dict[str, str]
    accepts: tuple[str, ...]
    task_types: tuple[str, ...] | None
    concurrency: int
    manual: bool
    durable: bool

    @classmethod
    def read(cls, query: bytes) -> Options:
        """Read the query.

        Raises:
            InvalidError: a parameter that is not known, or a value that does not fit.
        """
        given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        known = {"name", "subject", "label", "labels", "accepts", "task_types", "concurrency",
                 "ack", "durable"}  # fmt: skip
        for name, _ in given:
            if name not in known:
                raise InvalidError(f"?{name}= is not known; known are {', '.join(sorted(known))}")
        last = dict(given)
        name = last.get("name", "")
        if name:
            check_text("name", name)
        if last.get("ack", "auto") not in ("auto", "manual"):
            raise InvalidError("?ack= must be auto or manual")
        durable = last.get("durable", "0") in ("1", "true")
        if durable and not name:
            raise InvalidError("a durable stream needs a ?name= of its own to come back to")
        types = _several(given, "task_types")
        return cls(
            name=name or secrets.token_hex(8),
            subjects=tuple(check_pattern(value) for key, value in given if key == "subject"),
            labels=_labels(_several(given, "label", "labels")),
            accepts=tuple(_several(given, "accepts")),
            task_types=tuple(types) if types else None,
            concurrency=_whole(last.get("concurrency", "1"), "concurrency", MAX_CONCURRENCY),
            manual=last.get("ack") == "manual",
            durable=durable,
        )


def _several(given: Iterable[tuple[str, str]], *names: str) -> list[str]:
    """Return values that may be repeated or stand in one, with commas."""
    return [part for name, value in given if name in names for part in value.split(",") if part]


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not (name and colon):
            raise InvalidError(f"label {pair!r} is not NAME:VALUE")
        labels[check_text("label", name)] = check_text("label", value)
    return labels


def _whole(text: str, name: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise InvalidError(f"?{name}={text[:20]!r} is no whole number from 1 to {most}")
    return int(text)


class StreamEndpoint(Endpoint):
    """A stream client that is connected."""

    def __init__(self, options: Options, write: Write, *, linger_s: float) -> None:
        super().__init__(
            address=f"stream.{escape(options.name)}",
            accepts=options.accepts,
            labels=options.labels,
            concurrency=0,  # until hello is out
            task_types=options.task_types,
            linger_s=linger_s,
        )
        self._write = write
        self._manual = options.manual
        self._number = 0
        self._unanswered: dict[int, asyncio.Future[None]] = {}
        self._tasks: dict[str, int] = {}

    async def deliver(self, envelope: Envelope) -> None:
        """Write one envelope; with manual acknowledgement, wait for the answer."""
        self._number += 1
        number = self._number
        if not self._manual:
            await self._write(frames.envelope_frame(number, envelope))
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unanswered[number] = answer
        task_id = read_request(envelope).task_id if envelope.type == TASK_REQUEST else None
        if task_id is not None:
            self._tasks[task_id] = number
        try:
            await self._write(frames.envelope_frame(number, envelope))
            await answer
        finally:
            del self._unanswered[number]
            if task_id is not None:
                self._tasks.pop(task_id, None)

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
        self, options: Options, write: Write, write_now: WriteNow, *, linger_s: float
    ) -> None:
        super().__init__(options, write, linger_s=linger_s)
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


class StreamSockets:
    """All stream connections of one hub; an ASGI application."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Connection] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        try:
            principal = authenticated(self._core, scope["headers"])
            options = Options.read(scope["query_string"])
            connection = Connection(self._core, principal, options, scope, send)
            before = self._by_name.get(options.name)
            if before is not None:
                before.make_way(principal)
            connection.begin()
            closed = self._core.router.sources.connect(
                principal.source, replacing=before is not None
            )
        except HubError as error:
            await _refuse(self._core, scope, send, error)
            return
        self._by_name[options.name] = connection
        try:
            await connection.serve(receive)
        finally:
            closed()
            if self._by_name.get(options.name) is connection:
                del self._by_name[options.name]


async def _refuse(core: Core, scope: Scope, send: Send, error: HubError) -> None:
    """Answer the handshake with a problem, where the server can, else close it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 4000 + status_of(error)})
        return
    problem, headers = problem_of(error, scope["headers"], core.ids.trace())
    headers.append((b"content-type", b"application/problem+json"))
    start = {"status": problem.status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": encode_json(problem)})


class Connection:
    """One connection: an endpoint, its private routes, its publishes under way."""

    def __init__(
        self, core: Core, principal: Principal, options: Options, scope: Scope, send: Send
    ) -> None:
        self._core = core
        self._principal = principal
        self._options = options
        self._asgi_send = send
        linger_s = core.config.hub.stream_ttl if options.durable else 0.0
        self._write_now: WriteNow | None = scope.get("extensions", {}).get(WRITE_TEXTS)
        self._endpoint = (
            StreamEndpoint(options, self._hand_over, linger_s=linger_s)
            if options.manual or self._write_now is None
            else WrittenStream(options, self._hand_over, self._write_if_open, linger_s=linger_s)
        )
        # What a stream publishes comes from its own address.
        self._speaker = Principal(
            principal.name, self._endpoint.address, principal.scopes - {"admin"}, principal.durable
        )
        if "admin" in principal.scopes:
            everything = frozenset({"publish:>", "direct:>", "subscribe:>"})
            self._speaker = Principal(principal.name, self._endpoint.address, everything)
        self._link: Link | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    def make_way(self, principal: Principal) -> None:
        """Let a newer connection of the same name take over.

        Raises:
            ConflictError: the name belongs to somebody else.
        """
        if principal.name != self._principal.name and "admin" not in principal.scopes:
            raise ConflictError("a stream of this name is open for another token; choose another")
        self._core.spawn(self._close(NEWER, "a newer connection has this name"))

    def begin(self) -> None:
        """Check what was asked for, and take the place of the endpoint.

        Raises:
            ForbiddenError: a subscription the token does not cover.
        """
        if self._options.subjects:
            patterns_for(self._principal, self._options.subjects)

    async def serve(self, receive: Receive) -> None:
        """Talk until one side ends it."""
        core, endpoint = self._core, self._endpoint
        resumed = self._options.durable and core.directory.get(endpoint.address) is not None
        await self._asgi_send({"type": "websocket.accept"})
        for pattern in self._options.subjects:
            await self._subscribe(pattern)
        if self._options.durable:
            await core.attachments.remember(endpoint)
        if self._closed.is_set():
            return  # a newer one of this name came meanwhile, and has the link
        self._link = core.attach(endpoint)
        try:
            await self._say(frames.hello(endpoint.address, resumed=resumed))
            self._link.slots = self._options.concurrency
            await self._read(receive)
        finally:
            self._closed.set()
            self._link.close()
            for task in self._under_way:
                task.cancel()

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                await self._take(message)
            except HubError as error:
                metrics = self._core.metrics
                metrics.frames_refused["stream", error.code].inc()
                problem, _ = problem_of(error, (), self._core.ids.trace())
                await self._say(frames.problem_frame(problem))

    async def _take(self, message: Any) -> None:  # noqa: ANN401  # an ASGI message
        text = message.get("text")
        if text is None:
            raise InvalidError("frames are text; this one is binary")
        match frames.read_frame(text):
            case frames.Subscribe(subject):
                patterns_for(self._principal, (subject,))
                await self._subscribe(subject)
            case frames.Unsubscribe(subject):
                await self._core.attachments.unsubscribe(self._endpoint, subject)
            case frames.Ack(number):
                self._endpoint.answer(number)
            case frames.Nack(number, reason, True):
                self._endpoint.answer(number, Retry(reason=reason))
            case frames.Nack(number, reason):
                self._endpoint.answer(number, Reject(reason))
            case frames.Publish() as frame:
                await self._publish(frame)
            case frames.Request() as frame:
                await self._beside(self._request(frame))

    async def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something while reading goes on; read no further while there is too much of it."""
        while len(self._under_way) >= MAX_REQUESTS:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _publish(self, frame: frames.Publish) -> None:
        """Publish, here and now if that takes no waiting, else beside."""
        try:
            envelope = self._envelope(frame.envelope)
            if envelope.type == TASK_RESULT and not envelope.to:
                receipt: Receipt | Publishing = partial(self._result, envelope)
            else:
                receipt = self._core.router.publish_now(envelope, principal=self._speaker)
        except HubError as error:
            await self._say(self._refused(frame.ref, error))
            return
        if isinstance(receipt, Receipt):
            await self._say(frames.accepted(frame.ref, receipt.id, receipt.deliveries))
        else:
            await self._beside(self._tell(frame.ref, receipt))

    async def _tell(self, ref: str | int | None, publishing: Publishing) -> None:
        """Answer a publish once it is safe."""
        try:
            receipt = await publishing()
        except HubError as error:
            await self._say(self._refused(ref, error))
        else:
            await self._say(frames.accepted(ref, receipt.id, receipt.deliveries))

    async def _result(self, envelope: Envelope) -> Receipt:
        """Take the result of a task this stream was given."""
        self._endpoint.answered_by_result(read_result(envelope).task_id)
        return await self._core.take_result(envelope, by=self._endpoint.address)

    def _refused(self, ref: str | int | None, error: HubError) -> bytes:
        problem, _ = problem_of(error, (), self._core.ids.trace())
        return frames.refused(ref, problem)

    async def _request(self, frame: frames.Request) -> None:
        try:
            timeout_s = parse_duration(frame.timeout, what="timeout")
            answer = await self._core.router.request(
                self._envelope(frame.envelope), timeout_s=timeout_s, principal=self._speaker
            )
        except HubError as error:
            await self._say(self._refused(frame.ref, error))
        else:
            await self._say(frames.reply(frame.ref, answer))

    def _envelope(self, raw: bytes) -> Envelope:
        given = Given(self._speaker, self._core.clock.now_us())
        envelopes, batch = read_forms(bytes(raw), (), given, batch_limit=1)
        if batch:
            raise InvalidError("`envelope` is one envelope, not a batch")
        return envelopes[0]

    async def _subscribe(self, pattern: str) -> None:
        await self._core.attachments.subscribe(self._endpoint, pattern, limit=MAX_SUBSCRIPTIONS)

    async def _say(self, text: bytes) -> None:
        """Write an answer; nobody misses it where the peer is gone."""
        with suppress(OSError):
            await self._write(text)

    async def _hand_over(self, text: bytes) -> None:
        """Write a delivery.

        Raises:
            Retry: the peer is gone.
        """
        try:
            await self._write(text)
        except OSError as error:
            raise Retry(0.0, reason="node_lost") from error

    async def _write(self, text: bytes) -> None:
        if self._closed.is_set():
            raise ConnectionError("the stream is closed")
        if self._write_now is None or not self._write_now((text,)):
            await self._asgi_send({"type": "websocket.send", "text": text.decode()})

    def _write_if_open(self, texts: Sequence[bytes]) -> bool:
        return self._write_now is not None and not self._closed.is_set() and self._write_now(texts)

    async def _close(self, code: int, reason: str) -> None:
        self._closed.set()
        with suppress(OSError):
            await self._asgi_send({"type": "websocket.close", "code": code, "reason": reason})
