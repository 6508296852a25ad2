"""Publishing, and what became of what was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlmodel import Session

from hubbub.core import Core
from hubbub.envelope import Envelope, encode_json
from hubbub.errors import InvalidError, NotFoundError
from hubbub.intake import check_text
from hubbub.ports import Stored
from hubbub.store.reads import deliveries as delivery_reads
from hubbub.store.reads import envelopes as reads
from hubbub.store.tables import DeliveryRow
from hubbub.values import Receipt
from hubbub.web import pages
from hubbub.web.calls import ANYONE, Call, Operation, Reply, Spec
from hubbub.web.encoding import Listing
from hubbub.web.forms import Given, read_forms
from hubbub.web.inputs import (
    CURSOR,
    IDEMPOTENCY_KEY,
    LIMIT,
    SINCE,
    SUBJECT,
    TRACEPARENT,
    UNTIL,
    EnvelopeIn,
    EventIn,
    choice_of,
    text,
)
from hubbub.web.shapes import Batch, EnvelopeView, EventList
from hubbub.web.views import delivery_view

__all__ = ["Accepted", "Publishing", "operations"]

PATH: Final = "/api/v1/envelopes"
SHORTS: Final = list[EnvelopeIn]
EVENTS: Final = list[EventIn]
MEDIA: Final = (
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
)


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a publisher gets."""

    id: str
    trace_id: str
    outcome: str
    deliveries: int
    reason: str | None = None
    task_id: str | None = None


class Publishing:
    """Takes what callers publish, in every form."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def publish(self, call: Call) -> Reply:
        """Publish one envelope or a batch; answers after the commit."""
        core, principal = self._core, call.principal
        body = await call.body()
        now_us = core.clock.now_us()
        given = Given(principal, now_us, call.traceparent)
        envelopes, batch = read_forms(
            body, call.scope["headers"], given, batch_limit=core.config.hub.batch_limit
        )
        key = call.header(b"idempotency-key")
        if key is not None:
            check_text("Idempotency-Key", key)
        if batch:
            receipts = await core.router.publish_all(envelopes, principal=principal, key=key)
            return Reply(202, {"items": [_accepted(receipt) for receipt in receipts]})
        return Reply(202, _accepted(await self._one(call, envelopes[0], key)))

    async def _one(self, call: Call, envelope: Envelope, key: str | None) -> Receipt:
        if key is not None:
            if envelope.idempotency_key not in (None, key):
                raise InvalidError(
                    "the header Idempotency-Key and the body name different keys; use one of them"
                )
            envelope = envelope.replace(idempotency_key=key)
        try:
            return await self._core.router.publish(envelope, principal=call.principal)
        except InvalidError as error:
            error.index = None
            raise


def _accepted(receipt: Receipt) -> Accepted:
    return Accepted(
        receipt.id,
        receipt.trace_id,
        receipt.outcome,
        receipt.deliveries,
        receipt.reason,
        receipt.task_id,
    )


async def history(call: Call) -> Reply:
    """List envelopes, newest first."""
    wanted = reads.EnvelopeFilter(
        subject=pages.pattern_of(call),
        type=call.argument("type"),
        since_seq=pages.seq_at(call, "since"),
        until_seq=pages.seq_at(call, "until"),
        outcome=pages.choice(call, "outcome", ("accepted", "unrouted")),
    )
    limit, before = pages.limit_of(call), pages.number_after(call)

    def find(session: Session) -> tuple[list[bytes], list[int], int | None]:
        found, after = reads.history(session, wanted, before=before, limit=limit)
        return [_event(stored) for stored in found], [stored.seq for stored in found], after

    events, places, after = await call.core.read(find)
    return pages.page(events, after, places=places)


def _event(stored: Stored) -> bytes:
    """Return a CloudEvent with `outcome`, and `reason` when it is unrouted, as extensions.

    Called on a reading thread: data that is not JSON takes a while to encode.
    """
    more = {"outcome": _outcome(stored)}
    if stored.reason is not None:
        more["reason"] = stored.reason
    return stored.envelope.encode()[:-1] + b"," + encode_json(more)[1:]


def _outcome(stored: Stored) -> str:
    return "accepted" if stored.reason is None else "unrouted"


async def show(call: Call) -> Reply:
    """Show one envelope and its deliveries."""
    name = call.params["id"]

    def find(session: Session) -> tuple[Stored, Sequence[DeliveryRow]] | None:
        stored = reads.one(session, name)
        if stored is None:
            return None
        stored.envelope.encode()  # here it holds nobody up
        return stored, delivery_reads.of_envelope(session, stored.seq)

    await call.settled()
    found = await call.core.read(find)
    if found is None:
        raise NotFoundError(
            f"no envelope {name[:100]!r} is stored; volatile ones are not, "
            "and finished ones are removed after store.retention"
        )
    stored, rows = found
    held = call.core.room.held(row.id for row in rows if row.state == "pending")
    envelope = stored.envelope
    before = {
        "envelope": msgspec.Raw(envelope.encode()),
        "outcome": _outcome(stored),
        "reason": stored.reason,
    }
    views = (delivery_view(row, envelope.id, envelope.subject, held) for row in rows)
    return Reply(200, Listing("deliveries", views, before=before))


def operations(core: Core) -> tuple[Operation, ...]:
    """Return the operations on envelopes."""
    publishing = Publishing(core)
    return (
        Operation(
            "POST",
            PATH,
            publishing.publish,
            "Publish an envelope or a batch of them",
            ANYONE,
            Spec(
                answers={202: (Accepted, Batch)},
                body=(EnvelopeIn, EventIn, SHORTS, EVENTS),
                media=MEDIA,
                parameters=(IDEMPOTENCY_KEY, TRACEPARENT),
                problems=(409, 429),
            ),
        ),
        Operation(
            "GET",
            PATH,
            history,
            "History, newest first",
            ("read",),
            Spec(
                answers={200: EventList},
                parameters=(
                    SUBJECT,
                    text("type", "An envelope type."),
                    choice_of("outcome", "What came of it.", ["accepted", "unrouted"]),
                    SINCE,
                    UNTIL,
                    LIMIT,
                    CURSOR,
                ),
            ),
        ),
        Operation(
            "GET",
            PATH + "/{id:any}",
            show,
            "One envelope and its deliveries",
            ("read",),
            Spec(answers={200: EnvelopeView}, problems=(404,)),
        ),
    )
