"""The nouns that the rooms hand each other: routes, endpoints, deliveries, tasks, presence."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from hubbub.envelope import EVENT, Envelope
from hubbub.subjects import check_subject

if TYPE_CHECKING:
    from sqlalchemy import Table

__all__ = [
    "Attempt",
    "Deliver",
    "Delivery",
    "DeliveryState",
    "Endpoint",
    "Origin",
    "Outcome",
    "Overflow",
    "Presence",
    "PresenceState",
    "Principal",
    "Receipt",
    "Requirement",
    "Route",
    "RouteCase",
    "Submission",
    "Task",
    "TaskResult",
    "TaskState",
]

Deliver = Literal["all", "one", "sticky"]
"""How many of a route's endpoints get the envelope."""

Origin = Literal["file", "api", "plugin", "private"]
"""Where a route comes from; routes are read in this order."""

Overflow = Literal["wait", "drop_oldest", "drop_newest", "refuse"]
"""What a full mailbox does with one delivery more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCase:
    """One `[[routes.test]]`: this envelope must go exactly there."""

    given: Mapping[str, object]
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A rule: which envelopes go to which endpoints, and how hard to try.

    Attributes:
        match: Subject pattern.
        to: Addresses or address patterns; `{subject.1}` is the second token of the subject.
        where: JSON paths and what must stand there; all must hold.
        where_cel: The same as a CEL expression; needs the `cel` extra.
        types: Envelope types it is for; empty for all. A fallback is also for types that can be
            converted to one of them.
        labels: Labels an endpoint must have.
        fallback: Only where no other route matched.
        hold_s: Seconds a durable envelope is kept when no endpoint is known yet.
        key: JSON path of the ordering key; None keeps the envelope's own.
        durable: None leaves it to the publisher and the source.
        attempts: None leaves it to the adapter and the core.
        timeout_s: Seconds one attempt may take; None as above.
        transform: `kind:argument` of a transform that a plugin registered.
        cases: Tests of the whole table that stand beside this route.
    """

    name: str
    match: str
    to: tuple[str, ...]
    where: Mapping[str, object] = field(default_factory=dict[str, object])
    where_cel: str | None = None
    types: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    deliver: Deliver = "all"
    fallback: bool = False
    hold_s: float = 0.0
    key: str | None = None
    durable: bool | None = None
    attempts: int | None = None
    timeout_s: float | None = None
    transform: str | None = None
    origin: Origin = "plugin"
    cases: tuple[RouteCase, ...] = ()

    def __post_init__(self) -> None:
        """Allow lists where tuples are kept, so that plugins may write either."""
        object.__setattr__(self, "to", tuple(self.to))
        object.__setattr__(self, "types", tuple(self.types))


class PresenceState(StrEnum):
    """Whether somebody is there."""

    ONLINE = "online"
    PAUSED = "paused"
    OFFLINE = "offline"


class Endpoint:
    """Anything that can take envelopes. Subclass it, or give `deliver` as an attribute.

    Attributes:
        address: Its name in the whole hub, dot-separated.
        accepts: Envelope types it takes; an empty tuple for all of them.
        labels: What routes may ask for.
        concurrency: Envelopes it takes at once.
        task_types: Task types it does, when it takes task requests; None for all.
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
    """

    patterns: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()
    type: str = EVENT
    task_type: str | None = None


class TaskState(StrEnum):
    """Where a task is; a function of its delivery (`tasks.state_of`)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to this run."""
        return self not in (TaskState.QUEUED, TaskState.DISPATCHED)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Work with a result: who asked, its state, its result, its run.

    Attributes:
        seq: Its place in the journal; orders lists.
        asker: Source of the request.
        reply_to: Where the result goes.
        run: 1, and one more with each retry of a finished task.
        delivery_id: The delivery of this run; None for an orphan.
        result: JSON of the result, when there is one.
        error: Why it failed, as a code or as the worker's own words.
        orphan: A result for an id that nobody asked for.
    """

    id: str
    seq: int
    envelope_seq: int | None
    envelope_id: str | None
    task_type: str
    asker: str
    reply_to: str | None = None
    state: TaskState = TaskState.QUEUED
    run: int = 1
    delivery_id: int | None = None
    endpoint: str | None = None
    attempt: int = 0
    result: bytes | None = None
    error: str | None = None
    orphan: bool = False
    retry_on_failure: bool = False
    trace_id: str = ""
    created_us: int = 0
    updated_us: int = 0
    finished_us: int | None = None


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A task that somebody wants done, whoever asks and by whatever protocol.

    Attributes:
        task_type: What kind of work.
        source: Address of who asks.
        params: What the worker needs: a value, or JSON as `msgspec.Raw`.
        subject: Where it is published; None for `tasks.<task_type>.request`.
        to: Addresses or patterns of workers, past the routing table; a single address is a pin,
            and then labels do not count.
        labels: Labels a worker must have.
        timeout_s: Seconds of one attempt; None leaves it to route, adapter and core.
        max_attempts: None as above.
        not_before: Not handed over before: RFC 3339, or seconds since the epoch.
        retry_on_failure: Whether a result that says failed is tried again.
        reply_to: Address that gets the result, beside whoever has a route for it.
        more: Members of the request beside the hub's own, such as the asker's protocol's.
        id: Of the envelope, and of the task where `task_id` says none; made by the hub when empty.
        hops: Of the message that this task was made of.
    """

    task_type: str
    source: str
    params: object = msgspec.Raw(b"{}")
    task_id: str | None = None
    text: str | None = None
    subject: str | None = None
    to: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    priority: int = 5
    timeout_s: float | None = None
    max_attempts: int | None = None
    not_before: str | float | None = None
    retry_on_failure: bool = False
    key: str | None = None
    reply_to: str | None = None
    expires_us: int | None = None
    idempotency_key: str | None = None
    traceparent: str = ""
    more: Mapping[str, object] = msgspec.field(default_factory=dict[str, object])
    id: str = ""
    hops: int = 0


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
    last_error: str | None = None
    updated_us: int = 0
    task: Task | None = None
    siblings: tuple[Delivery, ...] = ()


class TaskResult(msgspec.Struct, frozen=True):
    """What the hub itself reads of `hubbub.task.result.v1`."""

    task_id: str
    state: str = "completed"
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """History: one hand-over of a task to one endpoint."""

    task_id: str
    run: int
    attempt: int
    endpoint: str
    worker: str | None
    started_us: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is speaking, and what it may do.

    Attributes:
        source: Address its envelopes carry, `api.<token name>` for API callers.
        scopes: `admin`, `read`, `tasks`, `publish:<pattern>`, `subscribe:<pattern>`,
            `direct:<pattern>`.
        durable: Default of what it publishes.
    """

    name: str
    source: str
    scopes: frozenset[str] = frozenset()
    durable: bool = True


class Receipt(msgspec.Struct, frozen=True):
    """What a publisher gets once its message is safe.

    Attributes:
        deliveries: How many were planned.
        outcome: `accepted`, or `unrouted` with a reason.
        duplicate: The same message was published before; this is the first one's receipt.
        task_id: For a task request, the id of the task.
    """

    id: str
    trace_id: str
    outcome: Literal["accepted", "unrouted"]
    deliveries: int
    reason: str | None = None
    duplicate: bool = False
    task_id: str | None = None
