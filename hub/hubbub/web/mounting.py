"""Operations of plugins and adapters: the hub's own way to answer, below paths of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from hubbub.web.calls import Operation, Paths
from hubbub.web.manners import HUBS, Manners

__all__ = ["Offer", "OperationRoute", "operation_routes"]


@dataclass(frozen=True, slots=True)
class Offer:
    """An operation that a plugin or an adapter has, for the description of the API.

    Attributes:
        owner: Name of the plugin or adapter.
        manners: Those it answers with.
    """

    owner: str
    operation: Operation
    manners: Manners = HUBS


class _Operations:
    """Answers a few operations; which hub it is, the request says."""

    def __init__(self, operations: Iterable[Operation], manners: Manners) -> None:
        self.operations: Final = tuple(operations)
        self.manners: Final = manners
        self._paths: Paths | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._paths is None:
            self._paths = Paths(scope["app"].core, self.operations, self.manners)
        await self._paths(scope, receive, send)


class OperationRoute(Route):
    """The operations of one path. Methods that it has not are answered here too, with 405."""

    def __init__(self, path: str, app: _Operations) -> None:
        super().__init__(path.replace(":any}", ":path}"), app)
        self._operations = [one for one in app.operations if one.path == path]
        self._manners = app.manners
        self.methods = {one.method for one in self._operations}

    def offers(self, owner: str) -> list[Offer]:
        """Return what it answers, for the description of the API."""
        return [Offer(owner, one, self._manners) for one in self._operations]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take any method, where the router would look for a better fit."""
        match, more = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.FULL), more

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, where the router would refuse other methods in its own words."""
        await self.app(scope, receive, send)


def operation_routes(operations: Sequence[Operation], manners: Manners = HUBS) -> list[Route]:
    """Return operations as routes for the hook `http_routes`.

    Tokens, scopes, limits of bodies and problems are then as below `/api/v1`, but for what the
    manners say.
    """
    app = _Operations(operations, manners)
    return [OperationRoute(path, app) for path in dict.fromkeys(one.path for one in operations)]
