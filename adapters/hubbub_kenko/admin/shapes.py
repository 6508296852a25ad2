"""Answers of the hub as this API has them: statistics by application, traces as hops. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

__all__ = ["EVENTS", "as_hops", "as_statistics"]

EVENTS: Final = {
    "envelope.accepted": "received",
    "envelope.unrouted": "failed",
    "delivery.planned": "routed",
    "delivery.sent": "sent",
    "delivery.delivered": "sent",
    "delivery.retry": "failed",
    "delivery.filtered": "failed",
    "delivery.dropped": "failed",
    "delivery.expired": "failed",
    "delivery.dead": "failed",
    "task.queued": "queued",
    "task.leased": "sent",
    "task.completed": "acked",
    "task.failed": "failed",
    "task.timeout": "failed",
    "task.cancelled": "failed",
    "task.late": "failed",
}
"""Steps of the hub, by the names that hops have.

What was delivered was sent; that it was acknowledged, too, is known where both were noted.
"""

_NOT_YET: Final = "delivery.in_flight"
"""What is being written is not sent yet; a hop that went away again would be none."""

_OF_APPS: Final = "kenko:"


def as_statistics(said: dict[str, Any]) -> dict[str, Any]:
    """Return series with `calls_by_app`: deliveries that applications took, by their names."""
    series = dict(said["series"])
    calls = series.pop("calls")
    figures = series.pop("figures")
    by_app = {
        name.removeprefix(_OF_APPS): points
        for name, points in calls.items()
        if name.startswith(_OF_APPS)
    }
    return {**said, "series": {**series, "calls_by_app": by_app}, "figures": figures}


def as_hops(said: dict[str, Any]) -> dict[str, Any]:
    """Return a trace with its steps as hops, in order.

    `latency_us` is how long after the hop before it one was.
    """
    hops: list[dict[str, Any]] = []
    before: datetime | None = None
    spans = [span for span in said["spans"] if span["name"] != _NOT_YET]
    sent = {_delivery(span) for span in spans if span["name"] == "delivery.sent"}
    for seq, span in enumerate(spans, start=1):
        at = datetime.fromisoformat(span["at"])
        latency = 0 if before is None else round((at - before).total_seconds() * 1e6)
        before = at
        detail = {**span.get("detail", {}), "step": span["name"], "took_ms": span["took_ms"]}
        if "envelope" in span:
            detail["envelope"] = span["envelope"]
        hops.append(
            {
                "seq": seq,
                "ts": span["at"],
                "component": span.get("endpoint") or "hub",
                "event": _event(span, sent),
                "latency_us": max(0, latency),
                "detail": detail,
            }
        )
    return {"trace_id": said["trace_id"], "hops": hops}


def _delivery(span: dict[str, Any]) -> object:
    return span.get("detail", {}).get("delivery")


def _event(span: dict[str, Any], sent: set[object]) -> str:
    """Return what happened: a task's delivery ends with the answer, which acknowledges, too."""
    name: str = span["name"]
    answered = "task" in span.get("detail", {}) or _delivery(span) in sent
    if name == "delivery.delivered" and answered:
        return "acked"
    return EVENTS.get(name, name)
