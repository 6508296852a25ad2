"""The names that are in use, each an endpoint that stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from hubbub import Hub
from hubbub.ports import Link
from hubbub.subjects import unescape
from hubbub_relay.endpoint import RelayName
from hubbub_relay.wire import RelayError

__all__ = ["Names"]


class Names:
    """Names by text; made when first used, up to a limit."""

    def __init__(self, hub: Hub, *, limit: int, make: Callable[[str], RelayName]) -> None:
        self._hub = hub
        self._limit = limit
        self._make = make
        self._links: dict[str, Link] = {}
        self._adding = asyncio.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._links

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._links))

    def load(self) -> None:
        """Bring all names back that were in use before a restart."""
        for endpoint in self._hub.known("relay.*"):
            name = unescape(endpoint.address.removeprefix("relay."))
            self._links[name] = self._hub.attach(self._make(name))

    async def add(self, name: str) -> None:
        """Take a name into use.

        Raises:
            RelayError: there are too many.
        """
        async with self._adding:
            if name in self._links:
                return
            if len(self._links) >= self._limit:
                raise RelayError("too many names", 429)
            self._links[name] = await self._hub.attach_for_good(self._make(name))

    def covered(self, wanted: str) -> list[str]:
        """Return the names in use that a name, or its beginning with `*` behind it, covers."""
        if not wanted.endswith("*"):
            return [wanted] if wanted in self._links else []
        return [name for name in self._links if name.startswith(wanted[:-1])]

    def close(self) -> None:
        """All of them are away."""
        for link in self._links.values():
            link.close()
        self._links.clear()
