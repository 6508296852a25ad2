"""Routes given over the API: kept in the store, put into the table at start."""

from __future__ import annotations

import json
from collections.abc import Mapping

import structlog
from sqlalchemy import delete, insert
from sqlmodel import col, select

from hubbub.config import RouteSettings, kept_route
from hubbub.errors import ConflictError, RouteError
from hubbub.ports import Clock
from hubbub.routing import RoutingTable
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.store.tables import RouteRow
from hubbub.values import Route

__all__ = ["Routes"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Routes:
    """The part of the routing table that the API may change."""

    def __init__(
        self, table: RoutingTable, database: Database, journal: Journal, clock: Clock
    ) -> None:
        self._table = table
        self._database = database
        self._journal = journal
        self._clock = clock

    def load(self) -> None:
        """Put the kept routes into the table; one that no longer fits is named and left out."""
        columns = select(col(RouteRow.name), col(RouteRow.body))
        for name, body in self._database.read_now(lambda session: session.exec(columns).all()):
            try:
                self._table.put(kept_route(name, body))
            except RouteError as error:
                log.warning("route.left_out", route=name, reason=str(error))

    async def put(self, name: str, body: Mapping[str, object]) -> Route:
        """Add a route, or replace the one of this name that came over the API.

        Raises:
            RouteError: the body is not valid, or the name belongs to hub.toml or a plugin.
        """
        route = RouteSettings.from_json(name, body).route("api")
        self._table.put(route)
        row = {"name": name, "body": json.dumps(body), "updated_us": self._clock.now_us()}
        forget = delete(RouteRow).where(col(RouteRow.name) == name)
        await self._journal.execute((forget, []), (insert(RouteRow), [row]))
        return route

    async def remove(self, name: str) -> None:
        """Take a route out that came over the API.

        Raises:
            NotFoundError: no such route.
            ConflictError: it belongs to hub.toml or a plugin.
        """
        route = self._table.get(name)
        if route.origin != "api":
            raise ConflictError(
                f"route {name!r} comes from {route.origin}, only that can take it out; "
                "put a route with the same match before it instead"
            )
        await self._journal.execute((delete(RouteRow).where(col(RouteRow.name) == name), []))
        self._table.remove(name)
