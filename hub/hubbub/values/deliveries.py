"""Deliveries: one envelope under way to one endpoint."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from hubbub.envelope import Envelope
from hubbub.values.tasks import Task

__all__ = ["Delivery", "DeliveryState", "Outcome"]


class DeliveryState(StrEnum):
    """Where a delivery is in its life."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DONE = "done"


class Outcome(StrEnum):
    """How a delivery ended; written once."""

    DELIVERED = "delivered"
    FILTERED = "filtered"
    DROPPED = "dropped"
    EXPIRED = "expired"
    DEAD = "dead"


class Delivery(msgspec.Struct, kw_only=True, eq=False):
    """One envelope for one mailbox, and from the first hand-over for one endpoint.

    The first block is fixed when the router plans it; the second changes as it lives. Times are
    microseconds since the epoch.

    Attributes:
        leased: A task: ends when its result is in, not when the peer took it.
        rank: Place in the mailbox, lower first (see `lanes.rank_of`).
        timeout_us: How long an attempt may take; 0 leaves it to the endpoint that gets it.
        lane: Ordering key, or None.
        wait_us: How long it may wait in the queue each time (`hold` or `queue_ttl`); 0 for ever.
        pulled_by: Worker that took it with a lease, for pull endpoints.
        credential: What that worker came with: the lease ends with it; not a column.
        sent_us: When this attempt was written to a peer that is to acknowledge it; not a column.
        task: Its task as it stands, while a leased delivery is in memory; not a column.
        siblings: Other deliveries of the same envelope, so that no endpoint gets it twice;
            not a column.
    """

    id: int
    envelope: Envelope
    seq: int
    mailbox: str
    route: str
    durable: bool = True
    leased: bool = False
    rank: int = 0
    lane: str | None = None
    max_attempts: int = 1
    timeout_us: int = 0
    wait_us: int = 0
    created_us: int = 0
    task_id: str | None = None
    task_type: str | None = None
    replay_of: int | None = None
    transform: str | None = None
    hold: bool = False

    endpoint: str | None = None
    state: DeliveryState = DeliveryState.PENDING
    outcome: Outcome | None = None
    reason: str | None = None
    attempts: int = 0
    due_us: int = 0
    deadline_us: int | None = None
    lease_until_us: int | None = None
    pulled_by: str | None = None
    credential: str = ""
    last_error: str | None = None
    updated_us: int = 0
    sent_us: int | None = None
    task: Task | None = None
    siblings: tuple[Delivery, ...] = ()
