"""Answers of the API as types: what is described is what is built and sent.

`views` makes them of the hub's values. `forbid_unknown_fields` makes the description exact.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hubbub.guards import BreakerState
from hubbub.values import Deliver, Origin, Outcome, PresenceState, TaskState

__all__ = [
    "AttemptView",
    "Batch",
    "BreakerView",
    "Count",
    "DeliveryList",
    "DeliveryView",
    "EndpointGuardView",
    "EndpointList",
    "EndpointView",
    "EnvelopeView",
    "Event",
    "EventList",
    "Next",
    "ReplayCount",
    "ReplayedWith",
    "RouteList",
    "RouteTest",
    "RouteTrial",
    "RouteView",
    "SourceGuardView",
    "TaskDetail",
    "TaskList",
    "TaskSubmitted",
    "TaskView",
    "Time",
    "TrialTarget",
]

Time = Annotated[str, Meta(description="RFC 3339, UTC, microseconds")]
Next = str | None
Count = Annotated[int, Meta(ge=0)]


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An envelope in its one JSON form, a CloudEvent 1.0."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: Time | None = None
    datacontenttype: str | None = None
    data: Any = None
    data_base64: str | None = None
    traceparent: str | None = None
    partitionkey: str | None = None
    priority: int | None = None
    replyto: str | None = None
    inreplyto: str | None = None
    expirytime: Time | None = None
    hops: int | None = None


class PastEvent(Event, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An envelope of the history, with what came of it at publish."""

    outcome: Literal["accepted", "unrouted"]
    reason: str | None = None


class EventList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of the history."""

    items: list[PastEvent]
    next: Next


class BatchMember(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What the publisher of one member of a batch gets."""

    id: str
    trace_id: str
    outcome: Literal["accepted", "unrouted"]
    deliveries: Count
    reason: str | None = None
    task_id: str | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """What the publisher of a batch gets."""

    items: list[BatchMember]


class EnvelopeView(msgspec.Struct, forbid_unknown_fields=True):
    """One envelope and its deliveries."""

    envelope: Event
    outcome: Literal["accepted", "unrouted"]
    reason: str | None
    deliveries: list[DeliveryView]


class DeliveryView(msgspec.Struct, kw_only=True):
    """A delivery."""

    id: str
    envelope_id: str
    subject: str
    endpoint: str | None
    pool: list[str] | None
    route: str
    state: str
    outcome: str | None
    reason: str | None
    attempts: int
    last_error: str | None
    task_id: str | None
    replay_of: str | None
    key: str | None
    pulled_by: str | None
    lease_until: str | None
    due_at: str | None
    deadline: str | None
    created_at: str
    updated_at: str


class DeliveryList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of deliveries."""

    items: list[DeliveryView]
    next: Next


class ReplayedWith(msgspec.Struct, forbid_unknown_fields=True):
    """A replay with other data: a new envelope."""

    envelope_id: str
    trace_id: str
    outcome: Literal["accepted", "unrouted"]
    deliveries: Count
    reason: str | None
    task_id: str | None
    replay_of: str


class ReplayCount(msgspec.Struct, forbid_unknown_fields=True):
    """A replay by filter."""

    matched: Count
    replayed: Count
    refused: Count


class TaskSubmitted(msgspec.Struct, forbid_unknown_fields=True):
    """What the asker of a task gets."""

    task_id: str
    state: TaskState
    trace_id: str


class TaskView(msgspec.Struct, kw_only=True):
    """A task."""

    task_id: str
    task_type: str
    state: TaskState
    asker: str
    reply_to: str | None
    endpoint: str | None
    run: int
    attempt: int
    result: msgspec.Raw | None
    error: str | None
    orphan: bool
    envelope_id: str | None
    delivery_id: str | None
    trace_id: str
    created_at: str
    updated_at: str
    finished_at: str | None


class TaskList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of tasks."""

    items: list[TaskView]
    next: Next


class AttemptView(msgspec.Struct, forbid_unknown_fields=True):
    """One hand-over of a task."""

    run: int
    attempt: int
    endpoint: str
    worker: str | None
    started_at: Time
    ended_at: Time | None
    outcome: str | None
    error: str | None


class TaskDetail(TaskView, kw_only=True):
    """One task, its hand-overs and its deliveries."""

    attempts: list[AttemptView]
    deliveries: list[DeliveryView]


class BreakerView(msgspec.Struct, forbid_unknown_fields=True):
    """A circuit breaker; `tries_at` is when an open one lets one envelope through."""

    state: BreakerState
    failures: Count
    opened: Count
    tries_at: Time | None


class EndpointGuardView(msgspec.Struct, forbid_unknown_fields=True):
    """What guards an endpoint, and how it stands; no number is no limit."""

    match: str
    rate: float | None
    burst: Count | None
    concurrency: Count | None
    size: Count | None
    tokens: float | None
    breaker: BreakerView | None


class SourceGuardView(msgspec.Struct, forbid_unknown_fields=True):
    """What guards an address as a source; no number is no limit."""

    match: str
    rate: float | None
    burst: Count | None
    concurrency: Count | None
    size: Count | None
    tokens: float | None
    under_way: Count


class EndpointView(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint, what it has in hand and what waits for it."""

    address: str
    adapter: str
    state: PresenceState
    labels: dict[str, str]
    accepts: list[str]
    task_types: list[str] | None
    concurrency: Count
    pull: bool
    linger_s: float | None
    in_flight: Count
    waiting: Count
    owner: str | None
    guard: EndpointGuardView | None
    source_guard: SourceGuardView | None


class EndpointFreed(msgspec.Struct, forbid_unknown_fields=True):
    """A name of a stream that is free now, and how many dead letters that made."""

    address: str
    dead_letters: Count


class EndpointList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of endpoints."""

    items: list[EndpointView]
    next: Next


class RouteTest(msgspec.Struct, forbid_unknown_fields=True):
    """One `[[routes.test]]`."""

    given: dict[str, Any]
    to: list[str]


class RouteView(msgspec.Struct, forbid_unknown_fields=True):
    """A route, by the names of its entry in hub.toml."""

    name: str
    match: str
    to: list[str]
    where: dict[str, Any]
    where_cel: str | None
    types: list[str]
    labels: dict[str, str]
    deliver: Deliver
    fallback: bool
    hold: float
    key: str | None
    durable: bool | None
    attempts: int | None
    timeout: float | None
    transform: str | None
    test: list[RouteTest]
    origin: Origin


class RouteList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of the routing table, in order."""

    items: list[RouteView]
    next: Next


class TransformedView(msgspec.Struct, forbid_unknown_fields=True):
    """What the transform of a route would make of the envelope."""

    subject: str
    type: str
    data: Any = None
    datacontenttype: str | None = None
    data_base64: str | None = None


class TrialTarget(msgspec.Struct, forbid_unknown_fields=True):
    """One delivery that would be made."""

    endpoint: str | None
    pool: list[str] | None
    to: list[str]
    route: str
    durable: bool
    attempts: int
    timeout: float | None
    key: str | None
    hold: bool
    outcome: Outcome | None
    reason: str | None
    transform: str | None
    transformed: TransformedView | None


class RouteTrial(msgspec.Struct, forbid_unknown_fields=True):
    """Where an envelope would go."""

    routes: list[RouteView]
    deliveries: list[TrialTarget]
    outcome: Literal["accepted", "unrouted"]
    reason: str | None
    to: list[str]
