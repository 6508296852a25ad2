"""Endpoints that stay known while they are away."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Executable, delete, insert
from sqlmodel import Session, col, select

from hubbub.store.tables import EndpointRow
from hubbub.values import Endpoint, Overflow

__all__ = ["remembering", "retained"]


class _Spec(msgspec.Struct, omit_defaults=True):
    accepts: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    concurrency: int = 1
    task_types: list[str] | None = None
    pull: bool = False
    mailbox_limit: int | None = None
    overflow: Overflow | None = None
    attempts: int | None = None
    timeout_s: float | None = None
    queue_ttl_s: float | None = None


def retained(session: Session) -> list[Endpoint]:
    """Return all remembered endpoints; none of them can take anything yet."""
    found: list[Endpoint] = []
    for row in session.exec(select(EndpointRow)):
        spec = msgspec.json.decode(row.spec, type=_Spec)
        found.append(
            Endpoint(
                address=row.address,
                accepts=spec.accepts,
                labels=spec.labels,
                concurrency=spec.concurrency,
                task_types=spec.task_types,
                linger_s=None,
                pull=spec.pull,
                mailbox_limit=spec.mailbox_limit,
                overflow=spec.overflow,
                attempts=spec.attempts,
                timeout_s=spec.timeout_s,
                queue_ttl_s=spec.queue_ttl_s,
            )
        )
    return found


def remembering(endpoint: Endpoint, now_us: int) -> list[tuple[Executable, list[dict[str, Any]]]]:
    """Return the statements that remember an endpoint as it is now."""
    spec = _Spec(
        accepts=endpoint.accepts,
        labels=dict(endpoint.labels),
        concurrency=endpoint.concurrency,
        task_types=None if endpoint.task_types is None else sorted(endpoint.task_types),
        pull=endpoint.pull,
        mailbox_limit=endpoint.mailbox_limit,
        overflow=endpoint.overflow,
        attempts=endpoint.attempts,
        timeout_s=endpoint.timeout_s,
        queue_ttl_s=endpoint.queue_ttl_s,
    )
    row = {"address": endpoint.address, "spec": msgspec.json.encode(spec), "seen_us": now_us}
    forget = delete(EndpointRow).where(col(EndpointRow.address) == endpoint.address)
    return [(forget, []), (insert(EndpointRow), [row])]
