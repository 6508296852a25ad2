"""The rule of `request_trust` before everything that answers: refuses, and tells named origins so.

The one place for CORS: what it refuses reaches no route, and nothing behind it looks at origins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog
from starlette.routing import BaseRoute
from starlette.types import Message, Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import ForeignOriginError, HubError, UnknownHostError
from hubbub.web.calls import PROBLEM, send_problem
from hubbub.web.problems import problem_of
from hubbub.web.request_trust import FOREIGN, TRUST, UNKNOWN_HOST, RequestTrust, Verdict, names

__all__ = ["OriginList", "RequestGuard", "is_linkable", "linkable"]

R = TypeVar("R", bound=BaseRoute)

Headers = list[tuple[bytes, bytes]]

OriginList = tuple[str, Sequence[str]]
"""The name of a setting, and the origins that it lists."""

MAX_AGE_S: Final = 600
"""How long a browser may remember the answer to its preflight."""

_POLICY_VIOLATION: Final = 1008
_LINKABLE: Final = "hubbub_linkable"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def linkable(route: R) -> R:
    """Mark a route whose GET changes nothing, so that links on pages of other sites may lead there.

    Without it a browser that follows such a link is refused on paths of adapters and plugins.
    """
    setattr(route, _LINKABLE, True)
    return route


def is_linkable(route: BaseRoute) -> bool:
    """Tell whether a route is marked so."""
    return getattr(route, _LINKABLE, False) is True


class RequestGuard:
    """Looks at each request of one listener before any of it is served."""

    def __init__(
        self,
        core: Core,
        *,
        loopback: bool,
        origins_at: Callable[[Scope], OriginList | None],
        is_linkable_at: Callable[[Scope], bool],
    ) -> None:
        """Begin.

        Args:
            loopback: Whether the listener is bound to loopback.
            origins_at: Returns the list of the adapter that a path belongs to; None for paths of
                others. Called for foreign origins only.
            is_linkable_at: Tells whether a GET of this path changes nothing.
        """
        self._core = core
        self._loopback = loopback
        self._origins_at = origins_at
        self._is_linkable_at = is_linkable_at
        self._trust = RequestTrust(core.config.hub, loopback=loopback)

    def judge(self, scope: Scope) -> Verdict:
        """Return the verdict on a request, which is in its scope from here on."""
        settings = self._core.config.hub
        if settings is not self._trust.settings:  # reloaded
            self._trust = RequestTrust(settings, loopback=self._loopback)
        verdict = scope[TRUST] = self._trust.judge(scope)
        return verdict

    async def admit(
        self, verdict: Verdict, scope: Scope, receive: Receive, send: Send
    ) -> Send | None:
        """Handle a request that is not plain; returns what answers go to, None when it is done."""
        host = _header(scope, b"host")
        if verdict.forwarded is not None:
            _forward(scope, verdict)
        if verdict.refusal == UNKNOWN_HOST:
            await self._refuse(UnknownHostError(host=host), scope, receive, send)
            return None
        named = verdict.is_named
        if verdict.refusal == FOREIGN and not (
            verdict.follows_link and self._is_linkable_at(scope)
        ):
            at = self._origins_at(scope)
            if at is None or not names(at[1], verdict.origin):
                origin = (verdict.origin or b"").decode("latin-1")
                error = ForeignOriginError(origin=origin, setting=None if at is None else at[0])
                await self._refuse(error, scope, receive, send)
                return None
            named = True
        if not named or not verdict.origin:
            return send
        cors: Headers = [
            (b"access-control-allow-origin", verdict.origin),
            (b"vary", b"Origin"),
        ]
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            wanted = _header(scope, b"access-control-request-method")
            if wanted is not None:
                await _answer_preflight(scope, send, cors, wanted)
                return None
        return _telling(send, cors)

    async def _refuse(self, error: HubError, scope: Scope, receive: Receive, send: Send) -> None:
        self._core.metrics.requests_refused[error.code].inc()
        log.info("web.refused", reason=error.code, path=scope["path"][:200], detail=error.message)
        if scope["type"] == "http":
            await send_problem(self._core, scope, send, error)
            return
        await receive()  # websocket.connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": error.code})
            return
        problem, headers = problem_of(error, scope["headers"], self._core.ids.trace())
        headers = [(b"content-type", PROBLEM), *headers]
        start = {"status": problem.status, "headers": headers}
        await send({"type": "websocket.http.response.start", **start})
        await send({"type": "websocket.http.response.body", "body": encode_json(problem)})


def _forward(scope: Scope, verdict: Verdict) -> None:
    """Write into the scope what a trusted proxy says: client, scheme and host."""
    told = verdict.forwarded
    assert told is not None
    if told.client is not None:
        scope["client"] = (told.client, 0)
    if told.scheme is not None:
        secure = told.scheme == "https"
        schemes = ("http", "https") if scope["type"] == "http" else ("ws", "wss")
        scope["scheme"] = schemes[secure]
    if told.host is not None:
        others = [each for each in scope["headers"] if each[0] != b"host"]
        scope["headers"] = [(b"host", told.host.encode("latin-1")), *others]


async def _answer_preflight(scope: Scope, send: Send, cors: Headers, method: str) -> None:
    """Say that a page of a named origin may send what it asks for; its route decides on that."""
    headers = [*cors, (b"access-control-allow-methods", method.encode("latin-1"))]
    asked = _header(scope, b"access-control-request-headers")
    if asked is not None:
        headers.append((b"access-control-allow-headers", asked.encode("latin-1")))
    if _header(scope, b"access-control-request-private-network") == "true":
        headers.append((b"access-control-allow-private-network", b"true"))
    headers.append((b"access-control-max-age", b"%d" % MAX_AGE_S))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _telling(send: Send, cors: Headers) -> Send:
    """Return a `send` that tells a named origin so; nobody else's word on it goes out."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [
                each
                for each in message.get("headers", ())
                if each[0].lower() != b"access-control-allow-origin"
            ]
            message = {**message, "headers": [*own, *cors]}
        await send(message)

    return told


def _header(scope: Scope, name: bytes) -> str | None:
    """Return a header; None where it is missing, or there more than once."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None
