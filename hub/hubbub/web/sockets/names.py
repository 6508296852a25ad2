"""Names of streams: whose they are, and who else may open them.

A name belongs to the token that made it: as long as it is open, and a durable one until it is gone.
Admins and tokens with `stream:<pattern>` may open it too. It stays its owner's, unless that token
has ended: then the first of those tokens that opens it has it. Whoever opens a name must be allowed
to watch all that it has subscribed, and all that still waits there because of a subscription.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlmodel import Session

from hubbub.core import Core
from hubbub.directory import Known
from hubbub.errors import ConflictError, ForbiddenError, NameTakenError
from hubbub.intake import scoped
from hubbub.store.reads import deliveries as reads
from hubbub.subjects import escape, matches
from hubbub.values import Endpoint, Principal
from hubbub.web.api.stream import patterns_for
from hubbub.web.sockets.endpoint import StreamEndpoint

__all__ = ["StreamName", "is_stream"]

PREFIX: Final = "stream."


def is_stream(core: Core, known: Known) -> bool:
    """Tell whether an endpoint is a stream's, and not of a plugin that calls it so."""
    endpoint = known.endpoint
    if isinstance(endpoint, StreamEndpoint):
        return True
    return (
        type(endpoint) is Endpoint  # as it was remembered over a restart
        and not known.present
        and known.address.startswith(PREFIX)
        and known.address not in core.contributions.owners
    )


class StreamName:
    """One name, as somebody opens it."""

    def __init__(self, core: Core, principal: Principal, name: str) -> None:
        self._core = core
        self._principal = principal
        self._name = name
        self.address: Final = f"{PREFIX}{escape(name)}"

    @property
    def _known(self) -> Known | None:
        """What is known of it; None where it is free."""
        return self._core.directory.get(self.address)

    @property
    def is_durable(self) -> bool:
        """Whether it stays while nobody has it open."""
        known = self._known
        return known is not None and known.endpoint.linger_s != 0

    @property
    def holder(self) -> StreamEndpoint | None:
        """The connection that has it open."""
        known = self._known
        if known is None or not known.present or not isinstance(known.endpoint, StreamEndpoint):
            return None
        return known.endpoint

    def check(self) -> None:
        """Check that the caller may open it just now.

        Raises:
            NameTakenError: it is another token's, or a plugin's.
            ConflictError: it is being freed.
            ForbiddenError: it has subscribed what the caller may not watch.
        """
        known = self._known
        if self._core.attachments.is_clearing(self.address):
            raise ConflictError(f"the name {self._name[:64]!r} is just being freed; try again")
        if known is None:
            return
        if not is_stream(self._core, known):
            raise NameTakenError(f"{self.address!r} is an endpoint of a plugin; use another name")
        if not self._may_open(known.endpoint.owner):
            raise NameTakenError(
                f"the stream name {self._name[:64]!r} belongs to another token; use another name, "
                f"or a token with the scope 'stream:{escape(self._name)}', or have an "
                f"administrator free it (`hubbub endpoints {self.address} --free`)"
            )
        self._check_patterns(self._core.subscriptions.of(self.address))

    async def check_all(self) -> None:
        """Check that the caller may open it, also what waits there; what is just leaving, leaves.

        It has to be checked once more at the very moment it is taken.

        Raises:
            HubError: as of `check`.
        """
        await self._core.attachments.cleared(self.address)
        self.check()
        await self._check_waiting()
        await self._core.attachments.cleared(self.address)

    async def _check_waiting(self) -> None:
        """Check that the caller may watch all that waits here because of a subscription.

        Raises:
            ForbiddenError: it may not.
        """
        core, address = self._core, self.address
        if self._known is None or not self._principal.scopes.isdisjoint({"admin", "read"}):
            return
        routes = set(await core.read(lambda session: _routes(session, address)))
        box, link = core.room.boxes.find(address), core.room.link_of(address)
        routes |= {delivery.route for delivery in box.line} if box is not None else set()
        routes |= {d.route for d in link.in_flight.values()} if link is not None else set()
        beginning = f"{address} "  # of the name of a private route
        self._check_patterns(
            route.removeprefix(beginning) for route in routes if route.startswith(beginning)
        )

    @property
    def owner(self) -> str | None:
        """Whose it is once the caller has opened it."""
        known = self._known
        mine = self._principal.id or None
        owner = None if known is None else known.endpoint.owner
        if not owner or not self.is_durable:
            return mine
        if self._core.credentials.holds(owner) or not self._is_scoped():
            return owner
        return mine

    def _may_open(self, owner: str | None) -> bool:
        return (
            not owner
            or owner == self._principal.id
            or "admin" in self._principal.scopes
            or self._is_scoped()
        )

    def _is_scoped(self) -> bool:
        return any(
            matches(pattern, self.address) or matches(pattern, self.address.removeprefix(PREFIX))
            for pattern in scoped(self._principal.scopes, "stream")
        )

    def _check_patterns(self, patterns: Iterable[str]) -> None:
        asked = tuple(patterns)
        if not asked:
            return
        try:
            patterns_for(self._principal, asked)
        except ForbiddenError as error:
            raise ForbiddenError(
                f"the stream name {self._name[:64]!r} gets what {self._principal.name!r} may not "
                f"watch: {error.message}"
            ) from error


def _routes(session: Session, address: str) -> list[str]:
    return reads.routes_waiting(session, address)
