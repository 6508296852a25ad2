"""The names that are in use, each an endpoint that stays.

A name comes into use when somebody sends or takes by it, and when a route, a `to` or an answer
names its address: what comes for it is kept, whether or not anybody has used it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from hubbub import Endpoint, Hub
from hubbub.errors import HubError
from hubbub.ports import Link
from hubbub.subjects import unescape
from hubbub_relay.endpoint import RelayName, address_of
from hubbub_relay.wire import RelayError
from hubbub_relay.wire.values import read_name

__all__ = ["Names"]

PREFIX: Final = "relay."
ALL: Final = "relay.*"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Names:
    """Names by text; made when first used, up to a limit."""

    def __init__(self, hub: Hub, *, limit: int, make: Callable[[str], RelayName]) -> None:
        self._hub = hub
        self._limit = limit
        self._make = make
        self._links: dict[str, Link] = {}
        self._adding = asyncio.Lock()
        self._end: Callable[[], None] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._links

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._links))

    def load(self) -> None:
        """Bring all names back that were in use before a restart, and make others when named."""
        known = [endpoint.address for endpoint in self._hub.known(ALL)]
        for address in dict.fromkeys([*known, *self._hub.waiting(ALL)]):
            name = _name_of(address)
            if name is not None:
                self._links[name] = self._hub.attach(self._make(name))
        self._end = self._hub.on_demand(PREFIX, self._named, self._came)

    def _named(self, address: str) -> Endpoint | None:
        """Return the endpoint of an address that was named; None for no name, or too many."""
        name = _name_of(address)
        return None if name is None or self._full else self._make(name)

    @property
    def _full(self) -> bool:
        return len(self._hub.known(ALL)) >= self._limit

    def _came(self, endpoint: Endpoint) -> None:
        name = _name_of(endpoint.address)
        if name is not None and self._end is not None:
            self._hub.spawn(self._come(name))

    async def _come(self, name: str) -> None:
        try:
            await self.add(name)
        except HubError as error:  # it is there; at the next start only if something waits for it
            log.warning("relay.name_not_kept", name=name, error=str(error))
            self._links[name] = self._hub.attach(self._make(name))

    async def add(self, name: str) -> None:
        """Take a name into use.

        Raises:
            RelayError: there are too many.
        """
        async with self._adding:
            if name in self._links:
                return
            if self._full and not self._hub.known(address_of(name)):
                raise RelayError("too many names", 429)
            self._links[name] = await self._hub.attach_for_good(self._make(name))

    def covered(self, wanted: str) -> list[str]:
        """Return the names in use that a name, or its beginning with `*` behind it, covers."""
        if not wanted.endswith("*"):
            return [wanted] if wanted in self._links else []
        return [name for name in self._links if name.startswith(wanted[:-1])]

    def close(self) -> None:
        """All of them are away."""
        if self._end is not None:
            self._end()
            self._end = None
        for link in self._links.values():
            link.close()
        self._links.clear()


def _name_of(address: str) -> str | None:
    """Return the name of an address; None where no name has that address."""
    try:
        name = read_name(unescape(address.removeprefix(PREFIX)), "name")
    except (RelayError, UnicodeError):
        return None
    return name if address_of(name) == address else None
