"""Administration: the audit, adapters, counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Final

from hubbub.adapters import RunningAdapter
from hubbub.envelope import rfc3339
from hubbub.observe.labels import total_of, value_of
from hubbub.store.reads import audit as audit_reads
from hubbub.store.reads import tasks as task_reads
from hubbub.values import TaskState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.health import hub_version
from hubbub.web.inputs import CURSOR, LIMIT
from hubbub.web.shapes_of_the_hub import (
    AdapterList,
    AdapterView,
    AuditEntry,
    AuditList,
    Box,
    Published,
    Stats,
    StoreStats,
)

__all__ = ["OPERATIONS"]

MAX_BOXES: Final = 100
"""Mailboxes that are listed, the fullest first."""


async def audit(call: Call) -> Reply:
    """List administrative acts, newest first."""
    limit, before = pages.limit_of(call), pages.number_after(call)
    rows = await call.core.read(
        lambda session: audit_reads.listed(session, before=before, limit=limit + 1)
    )
    items = (
        AuditEntry(rfc3339(row.at_us), row.principal, row.act, row.target, row.detail)
        for row in rows[:limit]
    )
    after = rows[limit - 1].seq if len(rows) > limit else None
    return pages.page(items, after, places=[row.seq for row in rows])


async def adapters(call: Call) -> Reply:
    """List adapters that are loaded, their state and why; those that are off are `stopped`."""
    running = {one.name: _adapter(one) for one in call.core.adapters}
    offered = call.core.contributions.offered
    return pages.page([running.get(name) or _off(name) for name in {**offered, **running}], None)


def _off(name: str) -> AdapterView:
    return AdapterView(
        name=name,
        state="stopped",
        reason=f"adapters.{name}.enabled is false in hub.toml",
        required=False,
        listen=[],
    )


def _adapter(one: RunningAdapter) -> AdapterView:
    return AdapterView(
        name=one.name,
        state=one.state,
        reason=one.reason or None,
        required=one.settings.required,
        listen=[str(address) for address in one.settings.listen],
    )


async def restart(call: Call) -> Reply:
    """Stop one adapter and start it again."""
    name, core = call.params["name"], call.core
    await core.extensions.restart_adapter(name)
    await core.audit(call.principal.name, "adapter.restart", name)
    return Reply(200, _adapter(core.adapters.get(name)))


async def stats(call: Call) -> Reply:
    """Count: messages since the start, and what is here now."""
    core, metrics = call.core, call.core.metrics
    now_us = core.clock.now_us()
    tasks = Counter(await core.read(task_reads.counts))
    dispatched = tasks[TaskState.DISPATCHED.value]
    tasks.update(core.finished)
    outcomes: Counter[str] = Counter()
    for key, child in metrics.deliveries.items():
        outcomes[key[1]] += value_of(child)
    accepted = total_of(metrics.envelopes_accepted)
    boxes = sorted(
        (box for box in core.room.boxes if box.depth), key=lambda box: box.depth, reverse=True
    )
    envelopes = Published(
        accepted=accepted,
        refused=total_of(metrics.envelopes_refused),
        unrouted=total_of(metrics.envelopes_unrouted),
        per_second=max(0.0, core.accepted.per_second(now_us, accepted)),
    )
    shown = Stats(
        version=hub_version(),
        hub=core.config.hub.name,
        state=core.state,
        at=rfc3339(now_us),
        uptime_s=max(0.0, (now_us - core.started_us) / 1e6),
        envelopes=envelopes,
        deliveries=dict(sorted(outcomes.items())),
        waiting=sum(box.depth for box in boxes),
        in_flight=len(core.room.held()) + dispatched,
        mailboxes=[Box(box.name, box.depth) for box in boxes[:MAX_BOXES]],
        endpoints=dict(Counter(known.state.value for known in core.directory)),
        tasks=dict(sorted(tasks.items())),
        routes=len(core.table),
        store=await asyncio.to_thread(_store, core.database.path),
    )
    return Reply(200, shown)


def _store(path: Path | None) -> StoreStats:
    """Return what the store takes on disk, where it is a file."""
    if path is None:
        return StoreStats("server", None)
    files = (path, path.with_name(path.name + "-wal"))
    return StoreStats("sqlite", sum(file.stat().st_size for file in files if file.exists()))


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/audit",
        audit,
        "Administrative acts, newest first",
        spec=Spec(answers={200: AuditList}, parameters=(LIMIT, CURSOR)),
    ),
    Operation(
        "GET",
        "/api/v1/adapters",
        adapters,
        "Adapters and how they are",
        ("read",),
        Spec(answers={200: AdapterList}),
    ),
    Operation(
        "POST",
        "/api/v1/adapters/{name}/restart",
        restart,
        "Restart an adapter",
        spec=Spec(answers={200: AdapterView}, problems=(404, 422)),
    ),
    Operation("GET", "/api/v1/stats", stats, "Counts", ("read",), Spec(answers={200: Stats})),
)
