"""The whole HTTP side as one Starlette application, and that of one adapter alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.adapters import RunningAdapter
from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import HubError, NotFoundError
from hubbub.listeners.http import LIMIT_FRAMES
from hubbub.web import health
from hubbub.web.api import all_operations
from hubbub.web.board import Board, listener_routes
from hubbub.web.calls import Paths, send_problem
from hubbub.web.decoding import check_path, header
from hubbub.web.mounting import Offer, OperationRoute
from hubbub.web.problems import InternalError, problem_of
from hubbub.web.request_guard import OriginList, RequestGuard, is_linkable, linkable
from hubbub.web.request_trust import TRUST
from hubbub.web.sockets import StreamSockets, refuse_handshake

__all__ = ["HubApp", "build_adapter_app", "build_app"]

PREFIX: Final = "/api/v1/"
"""Below this all paths are the hub's own."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HubApp(Starlette):
    """Starlette, with the hub's own paths served before its routing and middleware.

    Before anything else each request is looked at by the rule of `request_trust`.

    Attributes:
        core: The hub.
        paths: Operations of the hub's own API; also what is served on its WebSocket paths.
        offers: Operations of plugins and adapters that are among the routes.
    """

    def __init__(
        self,
        core: Core,
        paths: Paths,
        routes: Sequence[BaseRoute],
        offers: Sequence[Offer] = (),
        *,
        loopback: bool,
        adapter_of: Callable[[BaseRoute], str | None],
    ) -> None:
        """Build it.

        Args:
            loopback: Whether its listener is bound to loopback.
            adapter_of: Returns the adapter that a route belongs to; None for others.
        """
        super().__init__(
            routes=routes,
            exception_handlers={HubError: self._refused, Exception: self._failed},
            middleware=[Middleware(_Leaving)],
        )
        self.core: Final = core
        self.paths: Final = paths
        self.offers = offers
        self._direct = _direct(routes)
        self._adapter_of = adapter_of
        self._guard = RequestGuard(
            core,
            loopback=loopback,
            origins_at=self._origins_at,
            is_linkable_at=self._is_linkable_at,
        )
        self.router.default = self._unknown

    def change(self, routes: Sequence[BaseRoute], offers: Sequence[Offer] = ()) -> None:
        """Serve other routes from here on."""
        self.router.routes[:] = routes
        self.offers = offers
        self._direct = _direct(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket."""
        if TRUST not in scope:  # else it came in by another path of the hub, and was looked at
            verdict = self._guard.judge(scope)
            if not verdict.is_plain:
                admitted = await self._guard.admit(verdict, scope, receive, send)
                if admitted is None:
                    return
                send = admitted
        path = scope.get("path", "")
        scope["app"] = self
        try:
            check_path(scope)
        except HubError as error:
            await self._unreadable(scope, send, error)
            return
        if scope["type"] == "websocket":
            self._limit_frames(scope)
        if self._is_own(path):
            await self.paths(scope, receive, send)
        elif scope["type"] == "http" and (app := self._direct.get(path)) is not None:
            try:
                await app(scope, receive, send)
            except HubError as error:
                await send_problem(self.core, scope, send, error)
            except ClientDisconnect:
                _left(scope)
        else:
            await super().__call__(scope, receive, send)

    def _is_own(self, path: str) -> bool:
        """Tell whether a path is one of the hub's own API."""
        return bool(self.paths.operations) and (path.startswith(PREFIX) or self.paths.knows(path))

    def _limit_frames(self, scope: Scope) -> None:
        """Have a WebSocket take messages as large as its path may, before any are kept."""
        limit_frames = scope.get("extensions", {}).get(LIMIT_FRAMES)
        adapter = self._adapter_at(scope)
        if limit_frames is not None and adapter is not None:
            limit_frames(adapter.settings.frame_bytes)

    # Where a request goes; asked for WebSockets, and for those of foreign origins

    def _route_at(self, scope: Scope) -> BaseRoute | None:
        """Return the route of plugins or adapters that a request goes to."""
        if self._is_own(scope["path"]):
            return None
        found = {route.matches(scope)[0]: route for route in reversed(self.router.routes)}
        return found.get(Match.FULL) or found.get(Match.PARTIAL)

    def _origins_at(self, scope: Scope) -> OriginList | None:
        """Return the list of origins of the adapter that a path belongs to."""
        wanted = header(scope["headers"], b"access-control-request-method")
        if wanted is not None and scope.get("method") == "OPTIONS":
            scope = {**scope, "method": wanted}
        found = self._adapter_at(scope)
        if found is None or found.settings.ORIGINS_KEY is None:
            return None
        settings = found.settings
        return f"adapters.{found.name}.{settings.ORIGINS_KEY}", settings.web_origins

    def _adapter_at(self, scope: Scope) -> RunningAdapter | None:
        """Return the adapter that a path belongs to."""
        route = self._route_at(scope)
        name = None if route is None else self._adapter_of(route)
        return next((one for one in self.core.adapters if one.name == name), None)

    def _is_linkable_at(self, scope: Scope) -> bool:
        """Tell whether a GET changes nothing: the hub's own do not, nor do paths of nobody."""
        route = self._route_at(scope)
        return route is None or is_linkable(route)

    async def _unreadable(self, scope: Scope, send: Send, error: HubError) -> None:
        """Refuse a path that names nothing, because it cannot be decoded."""
        if scope["type"] == "websocket":
            await refuse_handshake(self.core, scope, send, error)
        else:
            await send_problem(self.core, scope, send, error)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4404, "reason": "no such path"})
            return
        error = NotFoundError(f"there is no path {scope['path'][:200]!r} here")
        await send_problem(self.core, scope, send, error)

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)
        return self._response(request, error)

    async def _failed(self, request: Request, error: Exception) -> Response:
        log.error("web.failed", path=request.url.path[:200], error=type(error).__name__)
        return self._response(
            request, InternalError("the hub made a mistake; its log says more under this trace_id")
        )

    def _response(self, request: Request, error: HubError) -> Response:
        problem, headers = problem_of(error, request.headers.raw, self.core.ids.trace())
        return Response(
            encode_json(problem),
            status_code=problem.status,
            media_type="application/problem+json",
            headers={name.decode(): value.decode() for name, value in headers},
        )


class _Leaving:
    """Ends in silence what was done for a client that hung up: nobody is left to answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            _left(scope)


def _left(scope: Scope) -> None:
    log.debug("web.client_gone", path=scope["path"][:200])


def _direct(routes: Sequence[BaseRoute]) -> dict[str, ASGIApp]:
    """Return what serves a whole path by itself: it needs no routing, nor middleware.

    That is a plain ASGI application on a path without parameters that no route before it covers.
    """
    found: dict[str, ASGIApp] = {}
    for place, route in enumerate(routes):
        if not isinstance(route, Route) or "{" in route.path:
            continue
        if route.methods and not isinstance(route, OperationRoute):
            continue
        scope: Scope = {"type": "http", "method": "POST", "path": route.path, "headers": []}
        if all(before.matches(scope)[0] is Match.NONE for before in routes[:place]):
            found.setdefault(route.path, route.app)
    return found


def build_app(core: Core, *, loopback: bool, more: Sequence[BaseRoute] = ()) -> HubApp:
    """Return everything on the one port: the hub's paths, then plugins', then adapters'.

    Args:
        loopback: Whether its listener is bound to loopback (`HttpListener.is_loopback`).
        more: Routes of the hub itself that stand before those of plugins (the console); a GET of
            them changes nothing.
    """
    paths = Paths(core, (*health.OPERATIONS, *all_operations(core)))
    paths.sockets["/api/v1/stream"] = StreamSockets(core)
    board = Board(core, [linkable(route) for route in more])
    routes = board.routes()
    app = HubApp(
        core, paths, routes, board.offers, loopback=loopback, adapter_of=board.adapter_of
    )  # fmt: skip

    async def changed() -> None:
        app.change(board.routes(), board.offers)

    core.changed.append(changed)
    core.app = app
    return app


def build_adapter_app(core: Core, name: str, *, loopback: bool) -> HubApp:
    """Return one adapter's paths alone, for its `listen`.

    Args:
        loopback: Whether its listener is bound to loopback (`HttpListener.is_loopback`).

    Raises:
        NotFoundError: no such adapter is enabled.
    """
    routes = listener_routes(core.adapters.get(name))
    return HubApp(core, Paths(core, ()), routes, loopback=loopback, adapter_of=lambda _: name)
