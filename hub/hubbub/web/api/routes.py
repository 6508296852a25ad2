"""The routing table: shown, changed, and tried out."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hubbub.core import Core
from hubbub.delivery.mailbox import requirement_of
from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import NotFoundError
from hubbub.intake import check_envelope
from hubbub.preparing import NotForItError, PrepareError
from hubbub.tasks import read_request
from hubbub.values import Delivery, DeliveryState
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.forms import Given, read_forms
from hubbub.web.inputs import CURSOR, LIMIT, EnvelopeIn, EventIn, RouteIn
from hubbub.web.shapes import RouteList, RouteTrial, RouteView
from hubbub.web.views import route_view

__all__ = ["OPERATIONS"]

PATH: Final = "/api/v1/routes"


async def listed(call: Call) -> Reply:
    """List the table, in the order in which it is read."""
    limit, start = pages.limit_of(call), pages.number_after(call) or 0
    routes = list(call.core.table)
    end = start + limit
    shown = map(route_view, routes[start:end])
    after = end if end < len(routes) else None
    return pages.page(shown, after, places=range(start + 1, end + 1))


async def show(call: Call) -> Reply:
    """Show one route."""
    return Reply(200, route_view(call.core.table.get(call.params["name"])))


async def put(call: Call) -> Reply:
    """Add a route, or replace the one of this name that came over the API."""
    core, name = call.core, call.params["name"]
    body = await call.json(dict[str, Any])
    try:
        core.table.get(name)
    except NotFoundError:
        status = 201
    else:
        status = 200
    route = await core.routes.put(name, body)
    await core.audit(call.principal.name, "route.put", name, f"{route.match} to {list(route.to)}")
    return Reply(status, route_view(route))


async def remove(call: Call) -> Reply:
    """Take a route out that came over the API."""
    name = call.params["name"]
    await call.core.routes.remove(name)
    await call.core.audit(call.principal.name, "route.delete", name)
    return Reply(204)


async def try_out(call: Call) -> Reply:
    """Say which routes an envelope would match and where it would go; nothing is kept."""
    core = call.core
    body = await call.body()
    now_us = core.clock.now_us()
    given = Given(call.principal, now_us)
    (envelope, *_), _ = read_forms(body, call.scope["headers"], given, batch_limit=1)
    check_envelope(envelope, core.limits())
    return Reply(200, dry_run(core, envelope.replace(id="dry-run", time_us=now_us, hops=1)))


def dry_run(core: Core, envelope: Envelope) -> dict[str, object]:
    """Return what publishing an envelope would do.

    Raises:
        InvalidError: a task request that is not valid.
    """
    request = None
    if envelope.type == TASK_REQUEST:
        request = read_request(envelope)
        if request.task_id is None:
            request = msgspec.structs.replace(request, task_id="dry-run")
    plan = core.planner.plan(
        envelope,
        seq=core.ids.seq(),
        durable=True if envelope.durable is None else envelope.durable,
        request=request,
        dry_run=True,
    )
    targets = [
        {**_target(delivery), **_transformed(core, delivery)} for delivery in plan.deliveries
    ]
    found = () if envelope.to else core.planner.routes(envelope, request)
    matched = [compiled for compiled in found if compiled.route.name in core.table]
    return {
        "routes": [route_view(compiled.route) for compiled in matched],
        "deliveries": targets,
        "outcome": "accepted" if plan.deliveries else "unrouted",
        "reason": plan.reason,
        "to": sorted({address for target in targets for address in target["to"]}),
    }


def _target(delivery: Delivery) -> dict[str, Any]:
    requirement = requirement_of(delivery.mailbox)
    to = [delivery.mailbox] if requirement is None else list(requirement.patterns)
    return {
        "endpoint": delivery.mailbox if requirement is None else None,
        "pool": None if requirement is None else to,
        "to": to,
        "route": delivery.route,
        "durable": delivery.durable,
        "attempts": delivery.max_attempts,
        "timeout": delivery.timeout_us / 1e6 or None,
        "key": delivery.lane,
        "hold": delivery.hold,
        "outcome": delivery.outcome,
        "reason": delivery.reason,
    }


def _transformed(core: Core, delivery: Delivery) -> dict[str, Any]:
    """Return what the route's transform would make of the envelope, or why it would not."""
    shown: dict[str, Any] = {"transform": delivery.transform, "transformed": None}
    if delivery.transform is None or delivery.state is DeliveryState.DONE:
        return shown
    try:
        with core.plugins.fence.trying():
            made = core.preparer.transformed(delivery.envelope, delivery.transform)
    except NotForItError as end:
        shown["outcome"], shown["reason"] = end.outcome, end.reason
    except PrepareError as error:
        shown["reason"] = error.detail
    else:
        shown["transformed"] = {
            "subject": made.subject,
            "type": made.type,
            **made.data_members(),
        }
    return shown


OPERATIONS: Final = (
    Operation(
        "GET",
        PATH,
        listed,
        "The routing table, in order",
        ("read",),
        Spec(answers={200: RouteList}, parameters=(LIMIT, CURSOR)),
    ),
    Operation(
        "POST",
        PATH + "/test",
        try_out,
        "Where an envelope would go",
        ("read",),
        Spec(answers={200: RouteTrial}, body=(EnvelopeIn, EventIn)),
    ),
    Operation(
        "GET",
        PATH + "/{name:any}",
        show,
        "One route",
        ("read",),
        Spec(answers={200: RouteView}, problems=(404,)),
    ),
    Operation(
        "PUT",
        PATH + "/{name:any}",
        put,
        "Add or replace a route",
        spec=Spec(answers={200: RouteView, 201: RouteView}, body=RouteIn),
    ),
    Operation(
        "DELETE",
        PATH + "/{name:any}",
        remove,
        "Take a route out",
        spec=Spec(answers={204: None}, problems=(404, 409)),
    ),
)
