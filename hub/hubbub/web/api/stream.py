"""Server-sent events: what is accepted, live. Streams observe; they are no endpoints."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from hubbub.core import Core
from hubbub.envelope import Envelope, encode_json
from hubbub.errors import CredentialEndedError, ForbiddenError
from hubbub.intake import scoped
from hubbub.store.reads import envelopes as reads
from hubbub.subjects import check_pattern, matches
from hubbub.values import Principal
from hubbub.web.auth import has_scope
from hubbub.web.calls import ANYONE, Call, Operation, Parameter, Spec
from hubbub.web.encoding import in_portions

__all__ = ["OPERATIONS", "covers", "patterns_for"]

QUEUE: Final = 1000
"""Envelopes that wait for a slow reader; what comes beyond that is a gap."""

RESUME_BYTES: Final = 1024 * 1024
"""Bytes that are read at once of what a reader missed."""

EMPTY_READS: Final = 20
"""How often what it missed is looked for in vain, each time in `SCAN` envelopes of others."""

KEEP_ALIVE_S: Final = 15.0
LOOK_S: Final = 1.0
"""How soon a stream notices that the hub is stopping."""

END_S: Final = 1.0
"""How long a reader that does not read may take to be told that its token has ended."""

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def covers(wide: str, narrow: str) -> bool:
    """Tell whether one pattern covers all that another one covers."""
    wanted, tokens = wide.split("."), narrow.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or tokens[place] == ">":
            return False
        if token not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)


def patterns_for(principal: Principal, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns a caller sees: those it asked for, else all it may.

    Raises:
        SubjectError: no pattern.
        ForbiddenError: it may not see all of one.
    """
    for pattern in asked:
        check_pattern(pattern)
    if has_scope(principal, ("read",)):
        return tuple(asked) or (">",)
    allowed = scoped(principal.scopes, "subscribe")
    if not allowed:
        raise ForbiddenError(
            f"{principal.name!r} may not watch; it needs the scope 'read' or 'subscribe:PATTERN'"
        )
    for pattern in asked:
        if not any(covers(wide, pattern) for wide in allowed):
            raise ForbiddenError(
                f"{principal.name!r} may not watch {pattern!r}; "
                f"it needs the scope 'read' or 'subscribe:{pattern}'"
            )
    return tuple(asked) or allowed


class Reader:
    """What waits for one reader; bounded, with a mark where something is missing.

    Attributes:
        resumed: Ids of what it was sent from the store, which may come live as well.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns: Final = patterns
        self.resumed: set[str] = set()
        self._waiting: deque[Envelope | None] = deque()
        self.woken: Final = asyncio.Event()

    def tap(self, envelope: Envelope) -> None:
        """Take an accepted envelope, if it is for this reader."""
        if not any(matches(pattern, envelope.subject) for pattern in self.patterns):
            return
        waiting = self._waiting
        if len(waiting) < QUEUE:
            waiting.append(envelope)
        elif waiting[-1] is not None:
            waiting.append(None)
        self.woken.set()

    def take(self) -> list[Envelope | None]:
        """Return what waits; None stands for a gap."""
        taken = list(self._waiting)
        self._waiting.clear()
        self.woken.clear()
        if self.resumed:
            taken = [one for one in taken if one is None or one.id not in self.resumed]
        return taken


async def stream(call: Call) -> None:
    """Send envelopes as they are accepted, until the caller leaves, its token or the hub ends."""
    core = call.core
    begun = False
    patterns = patterns_for(
        call.principal, [value for name, value in call.query if name == "subject" and value]
    )
    closed = core.router.sources.connect(call.principal.source)
    reader = Reader(patterns)
    last = call.header(b"last-event-id")
    forget = core.router.tap(reader.tap)
    gone = asyncio.ensure_future(_left(call.receive))
    try:
        async with core.credentials.within(call.principal.id):
            since = None if last is None else await _since(core, last)
            begun = True
            await call.send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if call.scope["method"] != "HEAD":
                await _send(call, b": welcome\n\n")
                if last is not None:
                    await _resume(call, since, reader, gone)
                await _follow(call, reader, gone)
            await call.send({"type": "http.response.body", "body": b""})
    except CredentialEndedError as ended:
        if not begun:
            raise
        await _say_ended(call, ended)
    finally:
        gone.cancel()
        forget()
        closed()


async def _follow(call: Call, reader: Reader, gone: asyncio.Future[None]) -> None:
    loop = asyncio.get_running_loop()
    silent_since = loop.time()
    while call.core.state == "ready":
        taken = reader.take()
        if taken:
            await _send_all(call, taken)
            silent_since = loop.time()
        elif loop.time() - silent_since >= KEEP_ALIVE_S:
            await _send(call, b": alive\n\n")
            silent_since = loop.time()
        woken = asyncio.ensure_future(reader.woken.wait())
        try:
            await asyncio.wait((woken, gone), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        if gone.done():
            return


async def _say_ended(call: Call, ended: CredentialEndedError) -> None:
    """End the answer with an event that says why; cut it off where nobody reads that.

    Raises:
        ClientDisconnect: it is cut off.
    """
    said = encode_json({"code": ended.code, "reason": ended.reason})
    try:
        async with asyncio.timeout(END_S):
            await _send(call, b"event: end\ndata: %s\n\n" % said)
            await call.send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        raise ClientDisconnect from None


async def _left(receive: Receive) -> None:
    """Return when the caller has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(call: Call, body: bytes) -> None:
    await call.send({"type": "http.response.body", "body": body, "more_body": True})


async def _send_all(call: Call, envelopes: Iterable[Envelope | None]) -> None:
    """Send envelopes, no more at once than a portion: a slow reader has no copy of them all."""
    for portion in in_portions(map(_event, envelopes)):
        await _send(call, portion)


def _event(envelope: Envelope | None) -> bytes:
    if envelope is None:
        return b"event: gap\ndata: {}\n\n"
    return b"id: %s\nevent: envelope\ndata: %s\n\n" % (
        envelope.id.encode(),
        envelope.encode().replace(b"\r", b" ").replace(b"\n", b" "),
    )


async def _since(core: Core, last: str) -> int | None:
    """Return the number of the last event that a reader had; None when it is not known."""
    return await core.read(lambda session: reads.seq_of(session, last))


async def _resume(
    call: Call, since: int | None, reader: Reader, gone: asyncio.Future[None]
) -> None:
    """Send what a reader missed since the last event it had, and a gap where that is not all.

    It is read as fast as it is taken: no more of it is in memory than `RESUME_BYTES`.
    """
    left, empty = QUEUE, 0
    while since is not None and left and empty < EMPTY_READS:
        find = partial(
            reads.later,
            seq=since,
            patterns=reader.patterns,
            limit=left,
            limit_bytes=RESUME_BYTES,
        )
        found, since = await call.core.read(find)
        left -= len(found)
        empty = 0 if found else empty + 1
        ids = {stored.envelope.id for stored in found}
        reader.resumed |= ids
        await _send_all(call, (stored.envelope for stored in found))
        if since is None:
            reader.resumed = ids  # what is older has come live by now, if it did
            return
        if gone.done() or call.core.state != "ready":
            return
    await _send_all(call, [None])


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/stream",
        stream,
        "Server-sent events, live; as WebSocket, an endpoint (see asyncapi.json)",
        ANYONE,
        Spec(
            answers={200: "text/event-stream"},
            parameters=(
                Parameter("subject", "Patterns to watch.", {"type": "string"}, repeated=True),
                Parameter(
                    "Last-Event-ID", "Goes on after this event.", {"type": "string"}, "header"
                ),
            ),
        ),
    ),
)
