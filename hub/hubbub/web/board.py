"""Whose path is whose: the routes of plugins and adapters as they come and go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from hubbub.adapters import RunningAdapter
from hubbub.core import Core
from hubbub.web.mounting import Offer, OperationRoute

__all__ = ["Board", "listener_routes"]

RESERVED: Final = ("/api/v1", "/console", "/healthz", "/readyz", "/metrics")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PART: Final = re.compile(r"{[^{}]*}")


class Board:
    """The routes of plugins and adapters, as they come and go. Each is asked once a start.

    Attributes:
        offers: Their operations, as `routes` last returned them.
    """

    def __init__(self, core: Core, more: Sequence[BaseRoute]) -> None:
        self._core = core
        self._more = more
        self._given: dict[tuple[str, int], Sequence[BaseRoute]] = {}
        self._adapters: dict[int, str] = {}
        self.offers: tuple[Offer, ...] = ()

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all that are there; who claims a path of another is refused."""
        core = self._core
        claims = _Claims()
        for route in self._more:
            claims.take((route,), "the hub", own=True)
        routes: list[BaseRoute] = list(self._more)
        offers: list[Offer] = []
        before, self._given = self._given, {}
        self._adapters = {}
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
                offers += _offers(plugin.name, given)
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
                offers += _offers(one.name, given)
                self._given[one.name, one.starts] = given
                self._adapters |= {id(route): one.name for route in given}
            else:
                _refuse(core, one, taken)
        self.offers = tuple(offers)
        return routes

    def adapter_of(self, route: BaseRoute) -> str | None:
        """Return the adapter that one of the routes belongs to; None for those of others."""
        return self._adapters.get(id(route))


def _offers(owner: str, routes: Iterable[BaseRoute]) -> list[Offer]:
    return [
        offer for one in routes if isinstance(one, OperationRoute) for offer in one.offers(owner)
    ]


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
        case OperationRoute():  # which answers every method of its path
            return [("ANY", _PART.sub("{}", route.path))]
        case Route():
            path = _PART.sub("{}", route.path)
            return [(method, path) for method in sorted(route.methods or {"ANY"})]
        case WebSocketRoute():
            return [("websocket", _PART.sub("{}", route.path))]
        case Mount():
            return [("mount", _PART.sub("{}", route.path))]
        case _:
            return []
