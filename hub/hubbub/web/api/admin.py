"""Administration: the audit, adapters, plugins, counts."""

from __future__ import annotations

from collections import Counter
from typing import Final

from prometheus_client import Counter as PrometheusCounter

from hubbub.adapters import RunningAdapter
from hubbub.envelope import rfc3339
from hubbub.observe.metrics import Labelled
from hubbub.store.reads import audit as audit_reads
from hubbub.store.reads import tasks as task_reads
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply
from hubbub.web.health import hub_version

__all__ = ["OPERATIONS"]


async def audit(call: Call) -> Reply:
    """List administrative acts, newest first."""
    limit, before = pages.limit_of(call), pages.number_after(call)
    rows = await call.core.read(
        lambda session: audit_reads.listed(session, before=before, limit=limit + 1)
    )
    items = [
        {
            "at": rfc3339(row.at_us),
            "principal": row.principal,
            "act": row.act,
            "target": row.target,
            "detail": row.detail,
        }
        for row in rows[:limit]
    ]
    return pages.page(items, rows[limit - 1].seq if len(rows) > limit else None)


async def adapters(call: Call) -> Reply:
    """List adapters that are enabled, their state and why."""
    return pages.page([_adapter(one) for one in call.core.adapters], None)


def _adapter(one: RunningAdapter) -> dict[str, object]:
    return {
        "name": one.name,
        "state": one.state,
        "reason": one.reason or None,
        "required": one.settings.required,
        "listen": [str(address) for address in one.settings.listen],
    }


async def restart(call: Call) -> Reply:
    """Stop one adapter and start it again."""
    name, core = call.params["name"], call.core
    await core.adapters.restart(name, core)
    await core.audit(call.principal.name, "adapter.restart", name)
    return Reply(200, _adapter(core.adapters.get(name)))


async def plugins(call: Call) -> Reply:
    """List plugins that were found, their state and why."""
    items = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution or None,
            "version": plugin.version or None,
            "bundled": plugin.bundled,
            "state": plugin.state,
            "reason": plugin.reason or None,
        }
        for plugin in call.core.plugins
    ]
    return pages.page(items, None)


async def stats(call: Call) -> Reply:
    """Count: messages since the start, and what is here now."""
    core, metrics = call.core, call.core.metrics
    tasks = Counter(await core.read(task_reads.counts))
    tasks.update(core.finished)
    outcomes: Counter[str] = Counter()
    for key, child in metrics.deliveries.items():
        outcomes[key[1]] += _count(child)
    return Reply(
        200,
        {
            "version": hub_version(),
            "hub": core.config.hub.name,
            "state": core.state,
            "at": rfc3339(core.clock.now_us()),
            "envelopes": {
                "accepted": _sum(metrics.envelopes_accepted),
                "refused": _sum(metrics.envelopes_refused),
                "unrouted": _sum(metrics.envelopes_unrouted),
            },
            "deliveries": dict(sorted(outcomes.items())),
            "waiting": sum(box.depth for box in core.room.boxes),
            "in_flight": len(core.room.held()),
            "endpoints": dict(Counter(known.state.value for known in core.directory)),
            "tasks": dict(sorted(tasks.items())),
            "routes": len(core.table),
        },
    )


def _sum(counters: Labelled[PrometheusCounter]) -> int:
    return sum(_count(child) for child in counters.values())


def _count(child: PrometheusCounter) -> int:
    """Return the value of a counter, by its public samples."""
    return int(
        sum(
            sample.value
            for family in child.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        )
    )


OPERATIONS: Final = (
    Operation("GET", "/api/v1/audit", audit, "Administrative acts, newest first"),
    Operation("GET", "/api/v1/adapters", adapters, "Adapters and how they are", ("read",)),
    Operation("POST", "/api/v1/adapters/{name}/restart", restart, "Restart an adapter"),
    Operation("GET", "/api/v1/plugins", plugins, "Plugins and how they are", ("read",)),
    Operation("GET", "/api/v1/stats", stats, "Counts", ("read",)),
)
