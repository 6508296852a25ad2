"""Steps 3 and 4 of the router: what the hub says of an envelope, and what plugins may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from hubbub.clock import Ids
from hubbub.envelope import TASK_REQUEST, Envelope, encode_json
from hubbub.observe.tracing import parse_traceparent
from hubbub.replies import Origin
from hubbub.tasks import TaskRequest, read_request
from hubbub.values import Principal

__all__ = ["BeforeRoute", "Stamper", "read_task", "source_of"]

BeforeRoute = Callable[[Envelope], Envelope]


class Stamper:
    """Gives envelopes id, source, time, trace and hops.

    Attributes:
        before_route: What plugins do to a stamped envelope; None when none does anything.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids: Final = ids
        self.before_route: BeforeRoute | None = None

    def stamp(
        self, envelope: Envelope, principal: Principal | None, origin: Origin | None, now_us: int
    ) -> Envelope:
        """Return the envelope as the hub knows it, and as the plugins made it.

        Args:
            origin: Of the envelope that this one answers: a reply inherits its trace and hops.
        """
        source = envelope.source if principal is None else source_of(envelope, principal)
        parent = parse_traceparent(envelope.traceparent) if envelope.traceparent else None
        hops = envelope.hops
        key = envelope.key
        if origin is not None:
            parent = parse_traceparent(origin.traceparent) or parent
            hops = max(hops, origin.hops)
            key = key or origin.key
        trace_id = parent[0] if parent else self._ids.trace()
        stamped = msgspec.structs.replace(
            envelope,
            id=envelope.id or self._ids.ulid(now_us),
            source=source,
            time_us=now_us,
            traceparent=f"00-{trace_id}-{self._ids.span()}-01",
            hops=hops + 1,
            key=key,
        )
        return stamped if self.before_route is None else self._hooked(stamped, self.before_route)

    def _hooked(self, envelope: Envelope, before_route: BeforeRoute) -> Envelope:
        """Let the plugins see who sent it, and change all but that."""
        changed = before_route(envelope)
        if changed is envelope:
            return envelope
        return msgspec.structs.replace(
            changed,
            id=envelope.id,
            source=envelope.source,
            time_us=envelope.time_us,
            traceparent=envelope.traceparent,
        )


def source_of(envelope: Envelope, principal: Principal) -> str:
    """Return whose envelope it is: the principal's, unless that may say another's."""
    if "admin" in principal.scopes and envelope.source:
        return envelope.source
    return principal.source


def read_task(envelope: Envelope) -> tuple[Envelope, TaskRequest | None]:
    """Read a task request, if it is one; one without an id gets one, in its data too.

    Raises:
        InvalidError: it is no task request that can be read.
    """
    if envelope.type != TASK_REQUEST:
        return envelope, None
    request = read_request(envelope)
    if request.task_id is not None:
        return envelope, request
    data = envelope.json()
    assert isinstance(data, dict)
    task_id = envelope.id
    envelope = envelope.replace(data=encode_json({"task_id": task_id, **data}))
    return envelope, msgspec.structs.replace(request, task_id=task_id)
