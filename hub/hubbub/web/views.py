"""Values as the API shows them. Ids of deliveries are numbers inside and texts outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import msgspec

from hubbub.core import Core
from hubbub.delivery.mailbox import requirement_of
from hubbub.directory import Known
from hubbub.envelope import rfc3339
from hubbub.guards import Breaker, BreakerState, GuardRule
from hubbub.store.tables import DeliveryRow
from hubbub.tokens import Token
from hubbub.values import Delivery, Route, Task
from hubbub.web.shapes import (
    BreakerView,
    DeliveryView,
    EndpointGuardView,
    EndpointView,
    RouteTest,
    RouteView,
    SourceGuardView,
    TaskView,
)
from hubbub.web.shapes_of_the_hub import TokenView

__all__ = [
    "delivery_view",
    "endpoint_view",
    "moment",
    "route_view",
    "target_of",
    "task_view",
    "token_view",
]


def moment(time_us: int | None) -> str | None:
    """Write a time, if there is one."""
    return None if time_us is None else rfc3339(time_us)


def delivery_view(
    row: DeliveryRow | Delivery,
    envelope_id: str,
    subject: str,
    held: Mapping[int, Delivery] | None = None,
) -> DeliveryView:
    """Return a delivery as it is now.

    Args:
        held: Deliveries that are in flight in memory; of a plain one the store does not know.
    """
    now = (held or {}).get(row.id) or row
    endpoint, pool = target_of(now)
    return DeliveryView(
        id=str(now.id),
        envelope_id=envelope_id,
        subject=subject,
        endpoint=endpoint,
        pool=pool,
        route=now.route,
        state=now.state,
        outcome=now.outcome,
        reason=now.reason,
        attempts=now.attempts,
        last_error=now.last_error,
        task_id=now.task_id,
        replay_of=None if now.replay_of is None else str(now.replay_of),
        key=now.lane,
        pulled_by=now.pulled_by,
        lease_until=moment(now.lease_until_us),
        due_at=moment(now.due_us or None),
        deadline=moment(now.deadline_us),
        created_at=rfc3339(now.created_us),
        updated_at=rfc3339(now.updated_us),
    )


def target_of(delivery: DeliveryRow | Delivery) -> tuple[str | None, list[str] | None]:
    """Return the endpoint of a delivery, or the patterns of the pool it waits in."""
    requirement = requirement_of(delivery.mailbox)
    if requirement is None:
        return delivery.endpoint or delivery.mailbox, None
    return delivery.endpoint, list(requirement.patterns)


def task_view(task: Task) -> TaskView:
    """Return a task."""
    return TaskView(
        task_id=task.id,
        task_type=task.task_type,
        state=task.state,
        asker=task.asker,
        reply_to=task.reply_to,
        endpoint=task.endpoint,
        run=task.run,
        attempt=task.attempt,
        result=None if task.result is None else msgspec.Raw(task.result),
        error=task.error,
        orphan=task.orphan,
        envelope_id=task.envelope_id,
        delivery_id=None if task.delivery_id is None else str(task.delivery_id),
        trace_id=task.trace_id,
        created_at=rfc3339(task.created_us),
        updated_at=rfc3339(task.updated_us),
        finished_at=moment(task.finished_us),
    )


def endpoint_view(core: Core, known: Known) -> EndpointView:
    """Return an endpoint, with what waits for it and what it has in hand."""
    endpoint = known.endpoint
    link = core.room.link_of(known.address)
    box = core.room.boxes.find(known.address)
    return EndpointView(
        address=known.address,
        adapter=endpoint.adapter,
        state=known.state,
        labels=dict(endpoint.labels),
        accepts=list(endpoint.accepts),
        task_types=None if endpoint.task_types is None else sorted(endpoint.task_types),
        concurrency=endpoint.concurrency if link is None else link.slots,
        pull=endpoint.pull,
        linger_s=endpoint.linger_s,
        in_flight=0 if link is None else len(link.in_flight),
        waiting=0 if box is None else box.depth,
        owner=endpoint.owner or None,
        guard=_guard_view(core, known.address),
        source_guard=_source_guard_view(core, known.address),
    )


def _guard_view(core: Core, address: str) -> EndpointGuardView | None:
    """Return what guards an endpoint, and how it stands; None for nothing."""
    guard = core.room.guards.find(address)
    if guard is None:
        return None
    now = core.clock.now_us() / 1e6
    return EndpointGuardView(
        **_rule_members(guard.rule),
        tokens=None if guard.bucket is None else round(guard.bucket.left(now), 3),
        breaker=None if guard.breaker is None else _breaker_view(guard.breaker),
    )


def _breaker_view(breaker: Breaker) -> BreakerView:
    is_open = breaker.state is BreakerState.OPEN
    return BreakerView(
        state=breaker.state,
        failures=breaker.failures,
        opened=breaker.opened,
        tries_at=moment(int(breaker.open_until * 1e6)) if is_open else None,
    )


def _source_guard_view(core: Core, address: str) -> SourceGuardView | None:
    """Return what guards an endpoint as a source, once it has published something."""
    guard = core.router.sources.find(address)
    if guard is None:
        return None
    now = core.clock.now_us() / 1e6
    return SourceGuardView(
        **_rule_members(guard.rule),
        tokens=None if guard.bucket is None else round(guard.bucket.left(now), 3),
        under_way=guard.under_way,
    )


class _Rule(TypedDict):
    match: str
    rate: float | None
    burst: int | None
    concurrency: int | None
    size: int | None


def _rule_members(rule: GuardRule) -> _Rule:
    """Return an entry of hub.toml; None stands for no limit."""
    return {
        "match": rule.match,
        "rate": rule.rate_per_s or None,
        "burst": rule.burst_tokens if rule.rate_per_s else None,
        "concurrency": rule.concurrency or None,
        "size": rule.size_bytes or None,
    }


def route_view(route: Route) -> RouteView:
    """Return a route by the names of its TOML entry."""
    return RouteView(
        name=route.name,
        match=route.match,
        to=list(route.to),
        where=dict(route.where),
        where_cel=route.where_cel,
        types=list(route.types),
        labels=dict(route.labels),
        deliver=route.deliver,
        fallback=route.fallback,
        hold=route.hold_s,
        key=route.key,
        durable=route.durable,
        attempts=route.attempts,
        timeout=route.timeout_s,
        transform=route.transform,
        test=[RouteTest(dict(case.given), list(case.to)) for case in route.cases],
        origin=route.origin,
    )


def token_view(token: Token) -> TokenView:
    """Return what is known of a token; never the token itself."""
    return TokenView(
        id=token.id,
        name=token.name,
        scopes=list(token.scopes),
        created_at=rfc3339(token.created_us),
        expires=moment(token.expires_us),
        revoked_at=moment(token.revoked_us),
    )
