"""Who is here."""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

from hubbub.errors import NotFoundError
from hubbub.subjects import matches
from hubbub.values import PresenceState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.inputs import CURSOR, LIMIT, choice_of, text
from hubbub.web.shapes import EndpointList, EndpointView
from hubbub.web.views import endpoint_view

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/endpoints"


async def listed(call: Call) -> Reply:
    """List known endpoints, by address."""
    core = call.core
    state = pages.choice(call, "state", [state.value for state in PresenceState])
    pattern = pages.pattern_of(call, "address")
    limit, after = pages.limit_of(call), pages.text_after(call) or ""
    known = [
        one
        for one in core.directory
        if one.address > after
        and (state is None or one.state == state)
        and (pattern is None or matches(pattern, one.address))
    ]
    found = nsmallest(limit + 1, known, key=lambda one: one.address)
    more = found[limit - 1].address if len(found) > limit else None
    return pages.page([endpoint_view(core, one) for one in found[:limit]], more)


async def show(call: Call) -> Reply:
    """Show one endpoint."""
    address = call.params["address"]
    known = call.core.directory.get(address)
    if known is None:
        raise NotFoundError(f"no endpoint {address[:200]!r} is known; `hubbub endpoints` lists all")
    return Reply(200, endpoint_view(call.core, known))


OPERATIONS: Final = (
    Operation(
        "GET",
        PATH,
        listed,
        "Who is here",
        ("read",),
        Spec(
            answers={200: EndpointList},
            parameters=(
                choice_of("state", "Whether it is there.", [each.value for each in PresenceState]),
                text("address", "A pattern of addresses."),
                LIMIT,
                CURSOR,
            ),
        ),
    ),
    Operation(
        "GET",
        PATH + "/{address:any}",
        show,
        "One endpoint",
        ("read",),
        Spec(answers={200: EndpointView}, problems=(404,)),
    ),
)
