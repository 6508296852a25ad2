"""One stream connection: an endpoint, its private routes, its publishes under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.errors import ConflictError, HubError, InvalidError, Reject, Retry
from hubbub.listeners.http import WRITE_TEXTS
from hubbub.ports import Link
from hubbub.rights import check_accepts
from hubbub.tasks import read_result
from hubbub.times import parse_duration
from hubbub.values import Principal, Receipt
from hubbub.web.api.stream import patterns_for
from hubbub.web.forms import Given, read_forms
from hubbub.web.problems import problem_of
from hubbub.web.sockets import frames
from hubbub.web.sockets.endpoint import StreamEndpoint, WriteNow, WrittenStream
from hubbub.web.sockets.options import Options

__all__ = ["MAX_REQUESTS", "MAX_SUBSCRIPTIONS", "Connection"]

NEWER: Final = 4009
"""Close code of a connection whose name another one has taken."""

MAX_SUBSCRIPTIONS: Final = 1000
MAX_REQUESTS: Final = 100
"""Publishes and requests of one connection under way at once."""


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
            StreamEndpoint(options, self._hand_over, linger_s=linger_s, owner=principal.id)
            if options.manual or self._write_now is None
            else WrittenStream(
                options,
                self._hand_over,
                self._write_if_open,
                linger_s=linger_s,
                owner=principal.id,
            )
        )
        # What a stream publishes comes from its own address.
        self._speaker = Principal(
            principal.name,
            self._endpoint.address,
            principal.scopes - {"admin"},
            principal.durable,
            principal.id,
        )
        if "admin" in principal.scopes:
            everything = frozenset({"publish:>", "direct:>", "subscribe:>", "tasks"})
            self._speaker = Principal(
                principal.name, self._endpoint.address, everything, id=principal.id
            )
        self._link: Link | None = None
        self._under_way: set[asyncio.Future[Any]] = set()
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
            ForbiddenError: a subscription, or work, that the token does not cover.
        """
        check_accepts(self._principal, self._options.accepts, self._options.task_types)
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
                await self._room_for_more()
                self._publish(frame)
            case frames.Request() as frame:
                await self._room_for_more()
                self._beside(asyncio.create_task(self._request(frame)))

    async def _room_for_more(self) -> None:
        """Read no further while too much is under way."""
        while len(self._under_way) >= MAX_REQUESTS:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def _beside(self, work: asyncio.Future[Any]) -> None:
        """Remember what goes on while reading does."""
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)

    def _publish(self, frame: frames.Publish) -> None:
        told = partial(self._tell, frame.ref)
        try:
            envelope = self._envelope(frame.envelope)
        except HubError as error:
            told(error)
            return
        if envelope.type == TASK_RESULT:
            self._beside(asyncio.create_task(self._result(frame.ref, envelope)))
            return
        publishing = self._core.router.publish_soon(envelope, principal=self._speaker, done=told)
        if publishing is not None:
            self._beside(publishing)

    def _tell(self, ref: str | int | None, outcome: Receipt | HubError) -> None:
        """Answer a publish that is safe, or was refused."""
        if isinstance(outcome, Receipt):
            text = frames.accepted(ref, outcome.id, outcome.deliveries)
        else:
            text = self._refused(ref, outcome)
        if not self._write_if_open((text,)) and not self._closed.is_set():
            self._beside(asyncio.create_task(self._say(text)))

    async def _result(self, ref: str | int | None, envelope: Envelope) -> None:
        """Take the result of a task this stream was given."""
        try:
            self._endpoint.answered_by_result(read_result(envelope).task_id)
            outcome = await self._core.router.publish(envelope, principal=self._speaker)
        except HubError as error:
            await self._say(self._refused(ref, error))
        else:
            late = outcome.duplicate
            await self._say(frames.accepted(ref, outcome.id, outcome.deliveries, late=late))

    def _refused(self, ref: str | int | None, error: HubError) -> bytes:
        problem, _ = problem_of(error, (), self._core.ids.trace())
        return frames.refused(ref, problem)

    async def _request(self, frame: frames.Request) -> None:
        try:
            timeout_s = parse_duration(frame.timeout, what="timeout")
            answer = await self._core.asking.request(
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
