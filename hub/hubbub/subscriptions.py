"""Private routes: what endpoints themselves asked for."""

from __future__ import annotations

from hubbub.errors import ConflictError, NotFoundError
from hubbub.routing import RoutingTable
from hubbub.values import Route

__all__ = ["Subscriptions"]


class Subscriptions:
    """Patterns that endpoints subscribed, each a private route to its endpoint."""

    def __init__(self, table: RoutingTable) -> None:
        self._table = table
        self._patterns: dict[str, list[str]] = {}

    def of(self, address: str) -> tuple[str, ...]:
        """Return what an endpoint subscribed."""
        return tuple(self._patterns.get(address, ()))

    def add(self, address: str, pattern: str, *, limit: int) -> None:
        """Subscribe an endpoint to a pattern; a second time changes nothing.

        Raises:
            ConflictError: it has too many already.
        """
        patterns = self._patterns.setdefault(address, [])
        if pattern in patterns:
            return
        if len(patterns) >= limit:
            raise ConflictError(
                f"{address!r} has {limit} subscriptions, which is the limit; "
                "subscribe to a wider pattern instead"
            )
        name = _name(address, pattern)
        self._table.put(Route(name=name, match=pattern, to=(address,), origin="private"))
        patterns.append(pattern)

    def remove(self, address: str, pattern: str) -> None:
        """Take a subscription back.

        Raises:
            NotFoundError: there is none.
        """
        patterns = self._patterns.get(address, [])
        if pattern not in patterns:
            raise NotFoundError(f"{address!r} has not subscribed {pattern!r}")
        patterns.remove(pattern)
        self._table.remove(_name(address, pattern))

    def forget(self, address: str) -> None:
        """Take all subscriptions of an endpoint back."""
        for pattern in self._patterns.pop(address, []):
            self._table.remove(_name(address, pattern))


def _name(address: str, pattern: str) -> str:
    return f"{address} {pattern}"
