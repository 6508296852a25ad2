"""One stream connection: an endpoint, its private routes, its publishes under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import TASK_RESULT, Envelope
from hubbub.errors import BusyError, HubError, InvalidError, Reject, Retry, TooLargeError
from hubbub.intake import is_over
from hubbub.listeners.http import WRITABLE, WRITE_TEXTS
from hubbub.ports import Link
from hubbub.tasks import read_result
from hubbub.times import parse_duration
from hubbub.values import Principal, Receipt
from hubbub.web.api.stream import patterns_for
from hubbub.web.forms import Given, read_forms
from hubbub.web.problems import problem_of
from hubbub.web.sockets import frames
from hubbub.web.sockets.endpoint import StreamEndpoint, WriteNow, WrittenStream
from hubbub.web.sockets.names import StreamName
from hubbub.web.sockets.options import Options

__all__ = ["MAX_REQUESTS", "MAX_SUBSCRIPTIONS", "Connection"]

ENDED: Final = 4401
"""Close code of a connection whose token was revoked or has expired."""

BEHIND: Final = 4008
"""Close code of a connection that reads so slowly that the hub holds too much for it."""

NEWER: Final = 4009
"""Close code of a connection whose name another one has taken."""

CLOSE_S: Final = 1.0
"""How long a close frame may wait for a client that does not read."""

MAX_SUBSCRIPTIONS: Final = 1000
MAX_REQUESTS: Final = 100
"""Publishes and requests of one connection under way at once."""


class Connection:
    """One connection: an endpoint, its private routes, its publishes under way."""

    def __init__(
        self,
        core: Core,
        principal: Principal,
        options: Options,
        name: StreamName,
        scope: Scope,
        send: Send,
    ) -> None:
        self._core = core
        self._principal = principal
        self._options = options
        self._name = name
        self._asgi_send = send
        durable = options.durable or name.is_durable  # once it is, it is until it is gone
        self._resumed = name.is_durable
        linger_s = core.config.hub.stream_ttl if durable else 0.0
        extensions: dict[str, Any] = scope.get("extensions", {})
        self._write_now: WriteNow | None = extensions.get(WRITE_TEXTS)
        self._until_writable: Callable[[], Awaitable[None]] | None = extensions.get(WRITABLE)
        self._endpoint = (
            StreamEndpoint(options, self._hand_over, self, linger_s=linger_s, owner=name.owner)
            if options.manual or self._write_now is None
            else WrittenStream(
                options,
                self._hand_over,
                self._write_if_open,
                self,
                linger_s=linger_s,
                owner=name.owner,
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
        self._serving: asyncio.Timeout | None = None
        self._leaving: list[Callable[[], None]] = []

    @property
    def source(self) -> str:
        """Who is counted for it."""
        return self._principal.source

    def open(self) -> None:
        """Take the place of the endpoint, which gets nothing before hello is out.

        Raises:
            BusyError: its source has too many streams.
            CredentialEndedError: its token was revoked since it was looked at.
        """
        core, holder = self._core, self._name.holder
        before = None if holder is None else holder.peer
        replacing = before is not None and before.source == self.source
        forget = core.credentials.open(self._principal.id, self._untrusted)
        try:
            closed = core.router.sources.connect(self.source, replacing=replacing)
        except BusyError:
            forget()
            raise
        self._leaving += [forget, closed]
        if before is not None:
            before.make_way()
        self._link = self._endpoint.link = core.attach(self._endpoint)

    def make_way(self) -> None:
        """Let a newer connection of the same name take over; that one takes the link."""
        self._stop(NEWER, "a newer connection has this name")

    def give_up(self) -> None:
        """The hub holds too much, and this one reads too slowly: it may come back."""
        self.end(BEHIND, "too much waits for this connection; read faster, or less")

    def end(self, code: int, reason: str) -> None:
        """End it; nothing is read or handed over from here on, whether the client listens or not.

        Args:
            code: Close code.
        """
        self._stop(code, reason)
        if self._link is not None:
            self._link.close()

    def _untrusted(self, reason: str) -> None:
        said = "has expired" if reason == "expired" else f"was {reason}"
        self.end(ENDED, f"the token {said}")

    def _stop(self, code: int, reason: str) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._stop_working()
            self._core.spawn(self._close(code, reason))

    async def serve(self, receive: Receive) -> None:
        """Talk until one side ends it."""
        serving = self._serving = asyncio.timeout(None)
        try:
            async with serving:
                await self._talk(receive)
        except TimeoutError:
            if not serving.expired():
                raise
        finally:
            self._serving = None
            self._closed.set()
            assert self._link is not None
            self._link.close()
            self._stop_working()
            for leave in self._leaving:
                leave()

    def _stop_working(self) -> None:
        for task in self._under_way:
            task.cancel()

    async def _talk(self, receive: Receive) -> None:
        core, endpoint = self._core, self._endpoint
        await self._asgi_send({"type": "websocket.accept"})
        for pattern in self._options.subjects:
            if not self._closed.is_set():
                await self._subscribe(pattern)
        if endpoint.linger_s and not self._closed.is_set():
            await core.attachments.remember(endpoint)
        if self._closed.is_set():
            return
        await self._say(frames.hello(endpoint.address, resumed=self._resumed))
        if self._link is not None and not self._closed.is_set():
            self._link.slots = self._options.concurrency
            await self._read(receive)

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect" or self._closed.is_set():
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
        limit = self._core.config.hub.limits.frame
        if is_over(text, limit):  # the port has room for the largest frame of any adapter
            raise TooLargeError(
                what="the frame", size_bytes=None, limit_bytes=limit, setting="hub.limits.frame"
            )
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
                if await self._room_for_more():
                    self._publish(frame)
            case frames.Request() as frame:
                if await self._room_for_more():
                    self._beside(asyncio.create_task(self._request(frame)))

    async def _room_for_more(self) -> bool:
        """Read no further while too much is under way; False when it has ended meanwhile."""
        while len(self._under_way) >= MAX_REQUESTS:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        return not self._closed.is_set()

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
        envelope = envelopes[0]
        size, limit = len(envelope.data), self._core.config.hub.max_body
        if size > limit:
            raise TooLargeError(
                what="data", size_bytes=size, limit_bytes=limit, setting="hub.max_body"
            )
        return envelope

    async def _subscribe(self, pattern: str) -> None:
        await self._core.attachments.subscribe(self._endpoint, pattern, limit=MAX_SUBSCRIPTIONS)

    async def _say(self, text: bytes) -> None:
        """Write an answer; nobody misses it where the peer is gone."""
        with suppress(OSError):
            await self._write(text)

    async def _hand_over(self, text: Callable[[], bytes]) -> None:
        """Write a delivery, which is encoded when there is room for it: until then others share it.

        Raises:
            Retry: the peer is gone.
        """
        try:
            if self._until_writable is not None:
                await self._until_writable()
            await self._write(text())
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
        """Say why, if the client reads that in time, and end the serving in any case."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._asgi_send({"type": "websocket.close", "code": code, "reason": reason})
        if self._serving is not None and self._serving.when() is None:
            self._serving.reschedule(asyncio.get_running_loop().time())
