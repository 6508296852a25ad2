"""Endpoints that stay known while they are away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, delete, insert
from sqlmodel import Session, col, select

from hubbub.store.tables import EndpointRow
from hubbub.values import Endpoint, Overflow

__all__ = ["forgetting", "remembering", "retained"]


class _Spec(msgspec.Struct, omit_defaults=True):
    accepts: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    concurrency: int = 1
    task_types: list[str] | None = None
    linger_s: float | None = None
    subscriptions: list[str] = []
    pull: bool = False
    mailbox_limit: int | None = None
    overflow: Overflow | None = None
    attempts: int | None = None
    timeout_s: float | None = None
    queue_ttl_s: float | None = None
    owner: str | None = None


def retained(session: Session) -> list[tuple[Endpoint, list[str]]]:
    """Return all remembered endpoints and their subscriptions; none can take anything yet."""
    found: list[tuple[Endpoint, list[str]]] = []
    for row in session.exec(select(EndpointRow)):
        spec = msgspec.json.decode(row.spec, type=_Spec)
        endpoint = Endpoint(
            address=row.address,
            accepts=spec.accepts,
            labels=spec.labels,
            concurrency=spec.concurrency,
            task_types=spec.task_types,
            linger_s=spec.linger_s,
            pull=spec.pull,
            mailbox_limit=spec.mailbox_limit,
            overflow=spec.overflow,
            attempts=spec.attempts,
            timeout_s=spec.timeout_s,
            queue_ttl_s=spec.queue_ttl_s,
            owner=spec.owner,
        )
        found.append((endpoint, spec.subscriptions))
    return found


Statements = list[tuple[Executable, list[dict[str, Any]]]]


def forgetting(address: str) -> Statements:
    """Return the statements that forget an endpoint."""
    return [(delete(EndpointRow).where(col(EndpointRow.address) == address), [])]


def remembering(endpoint: Endpoint, subscriptions: Sequence[str], now_us: int) -> Statements:
    """Return the statements that remember an endpoint as it is now."""
    spec = _Spec(
        accepts=endpoint.accepts,
        labels=dict(endpoint.labels),
        concurrency=endpoint.concurrency,
        task_types=None if endpoint.task_types is None else sorted(endpoint.task_types),
        linger_s=endpoint.linger_s,
        subscriptions=list(subscriptions),
        pull=endpoint.pull,
        mailbox_limit=endpoint.mailbox_limit,
        overflow=endpoint.overflow,
        attempts=endpoint.attempts,
        timeout_s=endpoint.timeout_s,
        queue_ttl_s=endpoint.queue_ttl_s,
        owner=endpoint.owner,
    )
    row = {"address": endpoint.address, "spec": msgspec.json.encode(spec), "seen_us": now_us}
    return [*forgetting(endpoint.address), (insert(EndpointRow), [row])]
