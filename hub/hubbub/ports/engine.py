"""What keeps what waits, knows who is here, and wakes other hubs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from hubbub.ports.records import Change, Claim, Record
from hubbub.values import Delivery, Presence

__all__ = ["Engine", "EngineLimits", "Kept", "Taken", "Verdict"]

Verdict = Literal["kept", "known", "exists"]


class Kept(msgspec.Struct, frozen=True):
    """What came of a record: `kept`; `known` with the first answer; or its task `exists`."""

    verdict: Verdict
    claim: Claim | None = None


class Taken(NamedTuple):
    """Waiting deliveries that were taken.

    Attributes:
        more: Others are due as well, perhaps: there was no room for them.
    """

    deliveries: Sequence[Delivery]
    more: bool


class EngineLimits(msgspec.Struct, frozen=True):
    """What an engine can do; `hubbub check` compares it with the configuration."""

    atomic_rows: bool = True
    by_rank: bool = True
    skip_keys: bool = True
    filters: bool = True


class Engine(Protocol):
    """Keeps what waits, knows who is here, wakes other hubs.

    Knows no route, no attempt policy, no protocol.
    """

    limits: EngineLimits

    def keep(
        self, record: Record, then: Callable[[Kept | None], None] | None = None
    ) -> Awaitable[Kept]:
        """Keep a record whole or not at all; safe on return.

        Args:
            then: Called after the commit, also when nobody waits any more; with None when
                nothing was kept.

        Raises:
            StoreUnavailableError: its fate is unknown and may be asked again.
        """
        ...

    async def take(
        self,
        box: str,
        *,
        limit: int,
        now_us: int,
        skip_keys: frozenset[str] = frozenset(),
        task_types: frozenset[str] | None = None,
        room_bytes: int | None = None,
    ) -> Taken:
        """Return waiting deliveries that are due, lowest rank first, and hold them.

        Args:
            skip_keys: Nothing of these keys.
            task_types: Only tasks of these types, and of a key only one before which nothing
                stands that is not held.
            room_bytes: What their payloads may take together; one is returned in any case.
        """
        ...

    def hold(self, delivery: Delivery) -> None:
        """This hub has it in memory: `take` gives it to nobody until it is settled or let go."""
        ...

    def holds(self, delivery_id: int) -> bool:
        """Tell whether this hub has a delivery in memory, or its end on the way to the store."""
        ...

    def let_go(self, delivery: Delivery) -> None:
        """This hub has it no longer in memory; it waits in the store."""
        ...

    async def settle(self, changes: Sequence[Change]) -> Sequence[bool]:
        """Write changes; True for each one that counted."""
        ...

    def note(self, change: Change, then: Callable[[bool], None] | None = None) -> None:
        """Write a change that nobody waits for, with a next commit; kept until that succeeds.

        Args:
            then: Called after the commit, with whether the change counted.
        """
        ...

    async def flush(self) -> None:
        """Return when all that was handed over before is written.

        Raises:
            StoreUnavailableError: some of it is not.
        """
        ...

    def on_waiting(self, woken: Callable[[str], None]) -> None:
        """Call `woken(box)` soon after another hub kept something in that mailbox."""
        ...

    async def announce(self, presence: Presence) -> None:
        """Tell other hubs who is here."""
        ...

    def directory(self) -> AsyncIterator[Presence]:
        """Yield all that is known of other hubs' endpoints, then every change."""
        ...

    async def pass_on(self, hub: str, frame: bytes) -> bool:
        """Give a volatile frame to another hub; False when it is not there."""
        ...

    async def start(self) -> None:
        """Begin."""
        ...

    async def stop(self) -> None:
        """Write what is left and end."""
        ...
