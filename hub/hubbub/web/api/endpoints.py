"""Who is here, and whose names of streams are."""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

from hubbub.core import Core
from hubbub.directory import Known
from hubbub.errors import ConflictError, NotFoundError
from hubbub.subjects import matches
from hubbub.values import PresenceState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.inputs import CURSOR, LIMIT, choice_of, text
from hubbub.web.shapes import EndpointFreed, EndpointList, EndpointView
from hubbub.web.sockets.endpoint import StreamEndpoint
from hubbub.web.sockets.names import is_stream
from hubbub.web.views import endpoint_view

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/endpoints"

FREED: Final = 4410
"""Close code of a stream whose name an administrator has freed."""


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
    views = (endpoint_view(core, one) for one in found[:limit])
    return pages.page(views, more, places=[one.address for one in found])


async def show(call: Call) -> Reply:
    """Show one endpoint."""
    return Reply(200, endpoint_view(call.core, _known(call)))


async def free(call: Call) -> Reply:
    """Free the name of a stream: its connection ends, and what waits there are dead letters."""
    core, known = call.core, _known(call)
    if not is_stream(core, known):
        raise ConflictError(f"{known.address!r} is no stream: {_whose(core, known)}")
    if core.attachments.is_clearing(known.address):
        raise ConflictError(f"{known.address!r} is just being freed")
    if isinstance(known.endpoint, StreamEndpoint):
        known.endpoint.peer.end(FREED, "an administrator has freed this name")
    dead_letters = await core.attachments.free(known)
    await core.audit(
        call.principal.name, "endpoint.free", known.address, f"{dead_letters} dead letters"
    )
    await call.settled()
    return Reply(200, EndpointFreed(known.address, dead_letters))


def _known(call: Call) -> Known:
    """Return the endpoint that the path names.

    Raises:
        NotFoundError: it is not known.
    """
    address = call.params["address"]
    known = call.core.directory.get(address)
    if known is None:
        raise NotFoundError(f"no endpoint {address[:200]!r} is known; `hubbub endpoints` lists all")
    return known


def _whose(core: Core, known: Known) -> str:
    """Say whose endpoint it is, and how it goes away."""
    plugin = core.contributions.owners.get(known.address)
    if plugin is None:
        return f"it is of the adapter {known.endpoint.adapter!r}, whose settings and paths rule it"
    return f"it is of the plugin {plugin!r}, which attaches and detaches it"


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
    Operation(
        "DELETE",
        PATH + "/{address:any}",
        free,
        "Free the name of a stream; what waits there becomes dead letters",
        spec=Spec(answers={200: EndpointFreed}, problems=(404, 409)),
    ),
)
