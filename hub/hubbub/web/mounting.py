"""Operations of plugins and adapters: the hub's own way to answer, below paths of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hubbub.web.calls import Operation, Paths

__all__ = ["operation_routes"]


class _Operations:
    """Answers a few operations; which hub it is, the request says."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = tuple(operations)
        self._paths: Paths | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._paths is None:
            self._paths = Paths(scope["app"].core, self._operations)
        await self._paths(scope, receive, send)


def operation_routes(operations: Sequence[Operation]) -> list[Route]:
    """Return operations as routes for the hook `http_routes`.

    Tokens, scopes, limits of bodies and problems are then as below `/api/v1`.
    """
    app = _Operations(operations)
    return [Route(path, app) for path in dict.fromkeys(one.path for one in operations)]
