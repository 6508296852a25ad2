"""Endpoints: who can take envelopes, whether they are there, and what is asked of them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from hubbub.envelope import EVENT, Envelope
from hubbub.subjects import check_subject

if TYPE_CHECKING:
    from sqlalchemy import Table

__all__ = ["EVERYTHING", "Endpoint", "Overflow", "Presence", "PresenceState", "Requirement"]

EVERYTHING: Final = "*"
"""In `accepts`: every envelope type but task requests. In `task_types`: every task type."""

Overflow = Literal["wait", "drop_oldest", "drop_newest", "refuse"]
"""What a full mailbox does with one delivery more."""


class PresenceState(StrEnum):
    """Whether somebody is there."""

    ONLINE = "online"
    PAUSED = "paused"
    OFFLINE = "offline"


class Endpoint:
    """Anything that can take envelopes. Subclass it, or give `deliver` as an attribute.

    Attributes:
        address: Its name in the whole hub, dot-separated.
        accepts: Envelope types it takes; an empty tuple, or `"*"`, for all but task requests.
            Only an endpoint that names `hubbub.task.request.v1` is a worker:
            `("*", TASK_REQUEST)` takes everything, and work too.
        labels: What routes may ask for.
        concurrency: Envelopes it takes at once.
        task_types: Task types it does, when it takes task requests; `"*"` is all of them. None
            declares nothing: then it gets what a route or a `to` brings it, of any type, and
            nothing of the hub's own pool.
        linger_s: Seconds from away to gone; None for never.
        pull: Task requests wait until somebody takes them with `HubApi.lease`.
        mailbox_limit: Deliveries that may wait for it; None for the hub's default.
        overflow: What its full mailbox does; None for the hub's default.
        queue_size: Deliveries that may wait for it or be under way to it before it is told that
            it is `overloaded`; None for any number.
        attempts: Attempts of one delivery; None for the hub's default.
        max_attempts: The same, but whatever a route says there are no more.
        timeout_s: Seconds of one attempt; None for the hub's default.
        queue_ttl_s: Seconds a task waits before it fails; None for the hub's default, 0 for
            without end.
        owner: Id of the credential that made it (`Principal.id`); None where it is nobody's.
    """

    def __init__(  # noqa: PLR0913  # all but the address have defaults
        self,
        *,
        address: str,
        accepts: tuple[str, ...] | list[str] = (),
        labels: Mapping[str, str] | None = None,
        concurrency: int = 1,
        task_types: tuple[str, ...] | list[str] | None = None,
        linger_s: float | None = 0.0,
        pull: bool = False,
        mailbox_limit: int | None = None,
        overflow: Overflow | None = None,
        queue_size: int | None = None,
        attempts: int | None = None,
        max_attempts: int | None = None,
        timeout_s: float | None = None,
        queue_ttl_s: float | None = None,
        owner: str | None = None,
    ) -> None:
        self.address: Final = check_subject(address)
        self.accepts = tuple(accepts)
        self.labels: Mapping[str, str] = dict(labels or {})
        self.concurrency = concurrency
        self.task_types = None if task_types is None else frozenset(task_types)
        self.linger_s = linger_s
        self.pull = pull
        self.mailbox_limit = mailbox_limit
        self.overflow: Overflow | None = overflow
        self.queue_size = queue_size
        self.attempts = attempts
        self.max_attempts = max_attempts
        self.timeout_s = timeout_s
        self.queue_ttl_s = queue_ttl_s
        self.owner = owner

    def deliver(self, envelope: Envelope) -> Awaitable[object]:
        """Take one envelope.

        Returns:
            When the peer has taken it, by the best evidence its protocol has. An `Envelope`
            returned here is the answer to a request.

        Raises:
            Retry: not now, again later.
            Reject: never.
        """
        del envelope
        raise TypeError(f"endpoint {self.address!r} has no deliver(); write one in its class")

    def deliver_now(self, envelopes: Sequence[Envelope]) -> int:
        """Take envelopes without waiting: the first ones, as many as can be taken just now.

        Called in place of `deliver` where nothing under way would be overtaken; what is left is
        given to `deliver`. For endpoints that write to something which has room, or has not.

        Returns:
            How many are taken, by the same evidence as `deliver`. 0 (the default): none this way.
        """
        del envelopes
        return 0

    def record(self, envelope: Envelope) -> Sequence[tuple[Table, tuple[object, ...]]] | None:
        """Return rows which *are* the taking of this envelope, for a peer that reads a table.

        They are written in the commit that holds the envelope, and the delivery is `delivered`
        by it. None (the default): the envelope is taken by `deliver`. A task request is never
        taken by its rows, only logged by them.
        """
        del envelope
        return None

    def does(self, task_type: str) -> bool:
        """Tell whether it does a task type, or has declared none."""
        types = self.task_types
        return types is None or task_type in types or EVERYTHING in types

    def overloaded(self) -> None:
        """More than `queue_size` deliveries wait for it or are under way; called for each one."""

    def cancel(self, task_id: str) -> None:
        """Tell the peer, if it can be told, that nobody wants this task's result any more."""

    @property
    def adapter(self) -> str:
        """The first token of the address: who brought it here."""
        return self.address.split(".", 1)[0]


@dataclass(frozen=True, slots=True)
class Presence:
    """What the directory tells about one endpoint."""

    endpoint: str
    state: PresenceState
    labels: Mapping[str, str]


class Requirement(msgspec.Struct, frozen=True):
    """What a pool asks of its members; also the filter of a pull.

    Attributes:
        patterns: Address patterns, one of which must cover the member.
        labels: Labels it must have.
        type: Envelope type it must take, natively or by conversion.
        task_type: Task type it must do; None when it is no task.
        declared: Its `task_types` must cover that type: to declare none is not enough.
    """

    patterns: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()
    type: str = EVENT
    task_type: str | None = None
    declared: bool = False
