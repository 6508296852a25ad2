"""Deliveries: what waits, what ended how, and dead letters once more."""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from hubbub.core import Core
from hubbub.errors import InvalidError, NotFoundError
from hubbub.replay import Replays
from hubbub.store.reads import deliveries as reads
from hubbub.subjects import check_pattern
from hubbub.values import DeliveryState, Outcome
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.inputs import (
    CURSOR,
    LIMIT,
    SINCE,
    SUBJECT,
    UNTIL,
    ReplayIn,
    ReplaySomeIn,
    choice_of,
    text,
)
from hubbub.web.shapes import DeliveryList, DeliveryView, ReplayCount, ReplayedWith
from hubbub.web.views import delivery_view, target_of

__all__ = ["operations"]

PATH: Final = "/api/v1/deliveries"
WAIT_S: Final = 10.0
"""Seconds that a replay by filter is waited for; the rest goes on in the background."""

_NUMBER: Final = re.compile(r"\d{1,19}", re.ASCII)


async def listed(call: Call) -> Reply:
    """List deliveries, newest first."""
    core = call.core
    await call.settled()
    held = core.room.held()
    wanted = reads.DeliveryFilter(
        outcome=pages.choice(call, "outcome", [outcome.value for outcome in Outcome]),
        state=pages.choice(call, "state", [state.value for state in DeliveryState]),
        endpoint=call.argument("endpoint"),
        route=call.argument("route"),
        reason=call.argument("reason"),
        subject=pages.pattern_of(call),
        since_seq=pages.seq_at(call, "since"),
        until_seq=pages.seq_at(call, "until"),
        held=frozenset(held),
    )
    limit, before = pages.limit_of(call), pages.number_after(call)
    found, after = await core.read(
        lambda session: reads.listed(session, wanted, before=before, limit=limit)
    )
    views = (delivery_view(row, envelope_id, subject, held) for row, envelope_id, subject in found)
    return pages.page(views, after, places=[row.id for row, _, _ in found])


async def show(call: Call) -> Reply:
    """Show one delivery."""
    number = _number(call)
    await call.settled()
    found = await call.core.read(lambda session: reads.one(session, number))
    if found is None:
        raise NotFoundError(f"no delivery {str(number)!r} is stored")
    held = call.core.room.held((number,)) if found.state is DeliveryState.PENDING else {}
    return Reply(200, delivery_view(found, found.envelope.id, found.envelope.subject, held))


class Other(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a replay may change."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Some(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead deliveries to replay, and how."""

    endpoint: str | None = None
    route: str | None = None
    reason: str | None = None
    subject: str | None = None
    since: str | float | None = None
    until: str | float | None = None
    rate: float | None = None
    dry_run: bool = False


class Replaying:
    """Replays over the API."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._replays = Replays(core)

    async def one(self, call: Call) -> Reply:
        """Replay one delivery; with other data as a new envelope."""
        number = _number(call)
        other = await call.json(Other)
        await call.settled()
        if other.data is msgspec.UNSET:
            again = await self._replays.one(number)
            shown: DeliveryView | ReplayedWith = delivery_view(
                again, again.envelope.id, again.envelope.subject
            )
        else:
            receipt = await self._replays.one_with(number, other.data)
            shown = ReplayedWith(
                envelope_id=receipt.id,
                trace_id=receipt.trace_id,
                outcome=receipt.outcome,
                deliveries=receipt.deliveries,
                reason=receipt.reason,
                task_id=receipt.task_id,
                replay_of=str(number),
            )
        await self._core.audit(call.principal.name, "delivery.replay", str(number))
        return Reply(202, shown)

    async def drop(self, call: Call) -> Reply:
        """Take one dead delivery off the list for good; the audit says what it was."""
        number = _number(call)
        await call.settled()
        dead = await self._replays.drop(number)
        endpoint, pool = target_of(dead)
        detail = (
            f"{dead.reason}: {dead.envelope.subject} for {endpoint or ' '.join(pool or ())}, "
            f"envelope {dead.envelope.id}"
        )
        await self._core.audit(call.principal.name, "delivery.drop", str(number), detail)
        return Reply(204)

    async def some(self, call: Call) -> Reply:
        """Replay all dead deliveries of a filter that were not replayed before."""
        given = await call.json(Some)
        wanted = _filter_of(given, now_us=self._core.clock.now_us())
        await call.settled()
        done = await self._replays.many(
            wanted, rate_per_s=given.rate, dry_run=given.dry_run, wait_s=WAIT_S
        )
        if not given.dry_run:
            detail = f"{done.matched} matched, {done.replayed} replayed by now"
            await self._core.audit(call.principal.name, "delivery.replay", "by filter", detail)
        return Reply(200, ReplayCount(done.matched, done.replayed, done.refused))


def _filter_of(given: Some, *, now_us: int) -> reads.DeliveryFilter:
    """Return the filter of a replay.

    Raises:
        InvalidError: a member is not valid.
    """
    if given.rate is not None and not (given.rate > 0 and math.isfinite(given.rate)):
        raise InvalidError(f"rate is {given.rate}; give deliveries per second, over 0")
    for name in ("endpoint", "route", "reason"):
        text = getattr(given, name)
        if text is not None and "\0" in text:
            raise InvalidError(f"{name} has a NUL character; take it out")
    return reads.DeliveryFilter(
        endpoint=given.endpoint,
        route=given.route,
        reason=given.reason,
        subject=None if given.subject is None else check_pattern(given.subject),
        since_seq=(
            None if given.since is None else pages.seq_in(given.since, what="since", now_us=now_us)
        ),
        until_seq=(
            None if given.until is None else pages.seq_in(given.until, what="until", now_us=now_us)
        ),
    )


def _number(call: Call) -> int:
    """Return the id of a delivery.

    Raises:
        NotFoundError: no delivery has such an id.
    """
    text = call.params["id"]
    if not _NUMBER.fullmatch(text) or int(text) > pages.MAX_SEQ:
        raise NotFoundError(f"no delivery {text[:40]!r} is stored; ids are numbers")
    return int(text)


def operations(core: Core) -> tuple[Operation, ...]:
    """Return the operations on deliveries."""
    replaying = Replaying(core)
    return (
        Operation(
            "GET",
            PATH,
            listed,
            "Deliveries, newest first",
            ("read",),
            Spec(
                answers={200: DeliveryList},
                parameters=(
                    choice_of("outcome", "How it ended.", [each.value for each in Outcome]),
                    choice_of("state", "Where it is.", [each.value for each in DeliveryState]),
                    text("endpoint", "An address."),
                    text("route", "The name of a route."),
                    text("reason", "Why it ended so."),
                    SUBJECT,
                    SINCE,
                    UNTIL,
                    LIMIT,
                    CURSOR,
                ),
            ),
        ),
        Operation(
            "POST",
            PATH + "/replay",
            replaying.some,
            "Replay dead ones by filter",
            spec=Spec(answers={200: ReplayCount}, body=ReplaySomeIn, body_needed=False),
        ),
        Operation(
            "POST",
            PATH + "/{id}/replay",
            replaying.one,
            "Replay a dead one",
            spec=Spec(
                answers={202: (DeliveryView, ReplayedWith)},
                body=ReplayIn,
                body_needed=False,
                problems=(404, 409),
            ),
        ),
        Operation(
            "GET",
            PATH + "/{id}",
            show,
            "One delivery",
            ("read",),
            Spec(answers={200: DeliveryView}, problems=(404,)),
        ),
        Operation(
            "DELETE",
            PATH + "/{id}",
            replaying.drop,
            "Take a dead one off the list for good",
            spec=Spec(answers={204: None}, problems=(404, 409)),
        ),
    )
