"""Which traces there were lately: durable ones by their rows, volatile ones by the ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import msgspec
from sqlmodel import Session

from hubbub.clock import seq_of_time, time_of_seq
from hubbub.envelope import Envelope, rfc3339
from hubbub.errors import HubError
from hubbub.observe.tracing import Step
from hubbub.portions import until_full
from hubbub.store.reads import deliveries as delivery_reads
from hubbub.store.reads import envelopes as reads
from hubbub.store.tables import DeliveryRow
from hubbub.subjects import check_pattern, matches
from hubbub.values import DeliveryState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Parameter, Reply, Spec
from hubbub.web.encoding import Turns
from hubbub.web.inputs import CURSOR, LIMIT, SINCE
from hubbub.web.shapes_of_upkeep import TraceList
from hubbub.web.views import target_of

__all__ = ["OPERATIONS", "STATUSES"]

SCAN: Final = 2000
"""Envelopes one page looks at: a rare trace takes more pages, never a long read."""

SCAN_BYTES: Final = 32 * 1024 * 1024
"""Bytes of data one page looks into for who spoke; of older parts of the traces as many again."""

STATUSES: Final = ("delivered", "failed", "dropped", "unrouted", "pending")

_SAID: Final = {
    "delivered": "delivered", "filtered": "delivered", "dropped": "dropped", "expired": "failed",
    "dead": "failed",
}  # fmt: skip
_WORST: Final = ("failed", "pending", "dropped", "delivered")


@dataclass(slots=True)
class _Trace:
    """What is known of one trace.

    Attributes:
        place: When something was last said on it, milliseconds since the epoch.
        ends: How its deliveries ended, as statuses; `pending` for those that did not.
    """

    trace_id: str
    place: int
    began_us: int = 0
    source: str = ""
    subject: str = ""
    users: set[str] = field(default_factory=set[str])
    envelopes: set[str] = field(default_factory=set[str])
    endpoints: dict[str, None] = field(default_factory=dict[str, None])
    ends: set[str] = field(default_factory=set[str])

    @property
    def status(self) -> str:
        """The worst end of any delivery; without one it went to nobody."""
        return next((status for status in _WORST if status in self.ends), "unrouted")

    def begin(self, at_us: int, source: str, subject: str) -> None:
        """Note an envelope; the first one says where the trace began."""
        if not self.began_us or at_us < self.began_us:
            self.began_us, self.source, self.subject = at_us, source, subject

    def view(self) -> dict[str, object]:
        """Return it as it is shown."""
        return {
            "trace_id": self.trace_id,
            "at": rfc3339(self.began_us),
            "source": self.source,
            "subject": self.subject,
            "status": self.status,
            "envelopes": len(self.envelopes),
            "endpoints": [*self.endpoints],
        }


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which traces are asked for; empty and None for any."""

    endpoints: Sequence[str]
    user: str | None
    status: str | None
    since_us: int

    def covers(self, trace: _Trace) -> bool:
        """Tell whether a trace is one of them."""
        if not trace.began_us or trace.began_us < self.since_us:
            return False
        if self.status is not None and trace.status != self.status:
            return False
        if self.user is not None and self.user not in trace.users:
            return False
        known = (trace.source, *trace.endpoints)
        return not self.endpoints or any(
            matches(pattern, address) for pattern in self.endpoints for address in known
        )


async def listed(call: Call) -> Reply:
    """List traces, newest first: those with an endpoint, a user, a status."""
    limit, before = pages.limit_of(call), pages.number_after(call)
    since = call.argument("since")
    now_us = call.core.clock.now_us()
    patterns = [value for name, value in call.query if name == "endpoint" and value]
    wanted = _Wanted(
        endpoints=[check_pattern(pattern) for pattern in patterns],
        user=call.argument("user"),
        status=pages.choice(call, "status", STATUSES),
        since_us=0 if since is None else pages.time_in(since, what="since", now_us=now_us),
    )
    await call.settled()
    read = partial(
        _read, before_ms=before, since_us=wanted.since_us, with_users=wanted.user is not None
    )
    traces, looked_until = await call.core.read(read)
    turns = Turns()
    for step in call.core.tracer.newest_first():
        _add_step(traces, step, before_ms=before)
        await turns.give()
    # A page ends where the scan of the store ended, or the ring would run ahead of it.
    found = sorted(traces.values(), key=lambda one: (one.place, one.trace_id), reverse=True)
    found = [one for one in found if one.place >= looked_until]
    shown = [one for one in found if wanted.covers(one)]
    following: int | None = looked_until or None
    if len(shown) > limit:
        edge = shown[limit - 1].place
        shown = [one for one in shown if one.place >= edge]
        following = edge
    return pages.page((one.view() for one in shown), following)


def _read(
    session: Session, *, before_ms: int | None, since_us: int, with_users: bool
) -> tuple[dict[str, _Trace], int]:
    """Return traces by the store, and back to which time it was looked; 0 for all of it."""
    stored = reads.newest(
        session,
        before=None if before_ms is None else seq_of_time(before_ms * 1000),
        since=seq_of_time(since_us) if since_us else None,
        limit=SCAN,
    )
    is_full = len(stored) == SCAN
    if with_users:
        sizes = reads.sizes_of(session, [one.seq for one in stored])
        looked_at = until_full(stored, lambda one: sizes.get(one.seq, 0), SCAN_BYTES)
        is_full = is_full or len(looked_at) < len(stored)
        stored = looked_at
    traces: dict[str, _Trace] = {}
    for one in stored:
        trace_id = one.envelope.trace_id
        traces.setdefault(trace_id, _Trace(trace_id, time_of_seq(one.seq) // 1000))
    whole = reads.of_traces(session, list(traces)) if traces else []
    for one in whole:
        envelope = one.envelope
        trace = traces[envelope.trace_id]
        trace.begin(envelope.time_us, envelope.source, envelope.subject)
        trace.envelopes.add(envelope.id)
    numbers = {one.seq: one.envelope.trace_id for one in whole}
    if with_users:
        for envelope in reads.data_of(session, list(numbers), limit_bytes=2 * SCAN_BYTES):
            traces[envelope.trace_id].users |= _users(envelope)
    for row in delivery_reads.of_envelopes(session, list(numbers)):
        _add_delivery(traces[numbers[row.envelope_seq]], row)
    return traces, time_of_seq(stored[-1].seq) // 1000 if is_full else 0


def _add_delivery(trace: _Trace, row: DeliveryRow) -> None:
    endpoint, _ = target_of(row)
    if endpoint is not None:
        trace.endpoints[endpoint] = None
    done = row.state == DeliveryState.DONE
    trace.ends.add(_SAID.get(str(row.outcome), "failed") if done else "pending")


def _add_step(traces: dict[str, _Trace], step: Step, *, before_ms: int | None) -> None:
    """Add what the ring says; of a trace that began on an earlier page nothing is added."""
    place = step.at_us // 1000
    trace = traces.get(step.trace_id)
    if trace is None:
        if before_ms is not None and place >= before_ms:
            return
        trace = traces[step.trace_id] = _Trace(step.trace_id, place)
    detail: Any = step.detail
    kind, _, end = step.name.partition(".")
    if step.name == "envelope.accepted":
        trace.envelopes.add(str(detail.get("envelope")))
        trace.begin(step.at_us, str(detail.get("source", "")), str(detail.get("subject", "")))
    elif kind == "delivery" and end in _SAID:
        trace.ends.add(_SAID[end])
        if detail.get("endpoint"):
            trace.endpoints[str(detail["endpoint"])] = None


class _Said(msgspec.Struct):
    """Where chat names who said something; the rest of the data is not decoded."""

    user_id: object = None
    sender: object = None


_decode_said = msgspec.json.Decoder(_Said).decode


def _users(envelope: Envelope) -> set[str]:
    """Return who said a message, by the members where chat names that."""
    try:
        said = _decode_said(envelope.json_bytes())
    except (HubError, msgspec.DecodeError, UnicodeError, RecursionError):
        return set()
    inside = cast("dict[str, object]", said.sender) if isinstance(said.sender, dict) else {}
    found = (said.user_id, inside.get("id"), inside.get("user_id"))
    return {str(one) for one in found if isinstance(one, str | int)}


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/traces",
        listed,
        "Traces, newest first",
        ("read",),
        Spec(
            answers={200: TraceList},
            parameters=(
                Parameter(
                    "endpoint",
                    "Addresses or patterns, one of which it came from or went to.",
                    {"type": "string"},
                    repeated=True,
                ),
                Parameter("user", "Who spoke; of durable messages.", {"type": "string"}),
                Parameter("status", "How it stands.", {"type": "string", "enum": [*STATUSES]}),
                SINCE,
                LIMIT,
                CURSOR,
            ),
        ),
    ),
)
