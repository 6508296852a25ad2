"""The whole HTTP side as one Starlette application, and that of one adapter alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.adapters import RunningAdapter
from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import HubError, NotFoundError
from hubbub.web import health
from hubbub.web.api import all_operations
from hubbub.web.calls import Paths, send_problem
from hubbub.web.problems import InternalError, problem_of
from hubbub.web.sockets import StreamSockets

__all__ = ["HubApp", "build_adapter_app", "build_app", "listener_routes"]

PREFIX: Final = "/api/v1/"
"""Below this all paths are the hub's own."""

RESERVED: Final = ("/api/v1", "/console", "/healthz", "/readyz", "/metrics")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PART: Final = re.compile(r"{[^{}]*}")


class HubApp(Starlette):
    """Starlette, with the hub's own paths served before its routing and middleware.

    Attributes:
        core: The hub.
        paths: Operations of the hub's own API; also what is served on its WebSocket paths.
    """

    def __init__(self, core: Core, paths: Paths, routes: Sequence[BaseRoute]) -> None:
        super().__init__(
            routes=routes,
            exception_handlers={HubError: self._refused, Exception: self._failed},
        )
        self.core: Final = core
        self.paths: Final = paths
        self._direct = _direct(routes)
        self.router.default = self._unknown

    def change(self, routes: Sequence[BaseRoute]) -> None:
        """Serve other routes from here on."""
        self.router.routes[:] = routes
        self._direct = _direct(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket."""
        path = scope.get("path", "")
        scope["app"] = self
        if self.paths.operations and (path.startswith(PREFIX) or self.paths.knows(path)):
            await self.paths(scope, receive, send)
        elif scope["type"] == "http" and (app := self._direct.get(path)) is not None:
            await app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

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


def _direct(routes: Sequence[BaseRoute]) -> dict[str, ASGIApp]:
    """Return what serves a whole path by itself: it needs no routing, nor middleware.

    That is a plain ASGI application on a path without parameters that no route before it covers.
    """
    found: dict[str, ASGIApp] = {}
    for place, route in enumerate(routes):
        if not isinstance(route, Route) or route.methods or "{" in route.path:
            continue
        scope: Scope = {"type": "http", "method": "POST", "path": route.path, "headers": []}
        if all(before.matches(scope)[0] is Match.NONE for before in routes[:place]):
            found.setdefault(route.path, route.app)
    return found


def build_app(core: Core, *, more: Sequence[BaseRoute] = ()) -> HubApp:
    """Return everything on the one port: the hub's paths, then plugins', then adapters'.

    Args:
        more: Routes of the hub itself that stand before those of plugins (the console).
    """
    paths = Paths(core, (*health.OPERATIONS, *all_operations(core)))
    paths.sockets["/api/v1/stream"] = StreamSockets(core)
    board = _Board(core, more)
    app = HubApp(core, paths, board.routes())

    async def changed() -> None:
        app.change(board.routes())

    core.changed.append(changed)
    core.app = app
    return app


class _Board:
    """The routes of plugins and adapters, as they come and go. Each is asked once a start."""

    def __init__(self, core: Core, more: Sequence[BaseRoute]) -> None:
        self._core = core
        self._more = more
        self._given: dict[tuple[str, int], Sequence[BaseRoute]] = {}

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all that are there; who claims a path of another is refused."""
        core = self._core
        claims = _Claims()
        for route in self._more:
            claims.take((route,), "the hub", own=True)
        routes: list[BaseRoute] = list(self._more)
        before, self._given = self._given, {}
        for plugin in core.plugins:
            if plugin.state != "up":
                continue
            given = before.get((plugin.name, id(plugin.object)))
            if given is None:
                asked = core.plugins.collect("http_routes", only=plugin)
                given = asked[0][1] if asked else ()
            aliens = [one for one in given if not isinstance(one, BaseRoute)]
            if aliens:
                core.plugins.fail(plugin, f"http_routes: {aliens[0]!r} is no route of Starlette")
                continue
            taken = claims.take(given, f"plugin {plugin.name!r}")
            if taken is None:
                routes += given
                self._given[plugin.name, id(plugin.object)] = given
            else:
                core.plugins.fail(plugin, taken)
        for one in core.adapters:
            if one.state in ("stopped", "failed"):
                continue
            given = before.get((one.name, one.starts))
            given = _routes_of(one, "http_routes") if given is None else given
            taken = claims.take(given, f"adapter {one.name!r}")
            if taken is None:
                routes += given
                self._given[one.name, one.starts] = given
            else:
                _refuse(core, one, taken)
        return routes


def build_adapter_app(core: Core, name: str) -> HubApp:
    """Return one adapter's paths alone, for its `listen`.

    Raises:
        NotFoundError: no such adapter is enabled.
    """
    return HubApp(core, Paths(core, ()), listener_routes(core.adapters.get(name)))


def listener_routes(one: RunningAdapter) -> list[BaseRoute]:
    """Return the paths of an adapter on its own addresses.

    They may be others than on the one port: `listener_routes()`, where it has that method, else
    `http_routes()`.
    """
    return _routes_of(one, "listener_routes") or _routes_of(one, "http_routes")


def _routes_of(one: RunningAdapter, method: str) -> list[BaseRoute]:
    routes: Any = getattr(one.adapter, method, None)
    return [] if routes is None else list(routes())


def _refuse(core: Core, one: RunningAdapter, reason: str) -> None:
    """Leave out an adapter whose paths are taken, and the plugin that brought it."""
    offered = core.contributions.offered.get(one.name)
    if offered is not None:
        core.plugins.fail(offered.plugin, reason)
    core.adapters.fail(one.name, reason)
    log.error("adapter.failed", adapter=one.name, reason=reason)


class _Claims:
    """Which path belongs to whom."""

    def __init__(self) -> None:
        self._owners: dict[tuple[str, str], str] = {}
        self._mounts: dict[str, str] = {}

    def take(self, routes: Iterable[BaseRoute], owner: str, *, own: bool = False) -> str | None:
        """Claim the paths of some routes, all or none; returns why not."""
        wanted = [claim for route in routes for claim in _claims_of(route)]
        for kind, path in wanted:
            holder = self._holder(kind, path, own=own)
            if holder is not None and holder != owner:
                return f"path {path!r} belongs to {holder}; two cannot have it"
        for kind, path in wanted:
            self._owners[kind, path] = owner
            if kind == "mount":
                self._mounts[path] = owner
        return None

    def _holder(self, kind: str, path: str, *, own: bool) -> str | None:
        if not own:
            for reserved in RESERVED:
                if path == reserved or path.startswith(reserved + "/"):
                    return "the hub"
        for mounted, owner in self._mounts.items():
            if path == mounted or path.startswith(mounted + "/"):
                return owner
        if kind == "mount":
            for (_, other), owner in self._owners.items():
                if other.startswith(path + "/") or other == path:
                    return owner
        return self._owners.get((kind, path))


def _claims_of(route: BaseRoute) -> list[tuple[str, str]]:
    """Return what a route claims: `(kind, path)`, with its parameters' names left out."""
    match route:
        case Route():
            path = _PART.sub("{}", route.path)
            return [(method, path) for method in sorted(route.methods or {"ANY"})]
        case WebSocketRoute():
            return [("websocket", _PART.sub("{}", route.path))]
        case Mount():
            return [("mount", _PART.sub("{}", route.path))]
        case _:
            return []
