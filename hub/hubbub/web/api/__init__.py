"""The paths below `/api/v1`, one module a noun."""

from __future__ import annotations

from hubbub.core import Core
from hubbub.web.api import (
    admin,
    database,
    deliveries,
    endpoints,
    envelopes,
    logs,
    plugins,
    reload,
    requests,
    routes,
    stream,
    tasks,
    tokens,
    tracelist,
    traces,
)
from hubbub.web.api.specs import described
from hubbub.web.calls import Operation

__all__ = ["all_operations"]


def all_operations(core: Core) -> tuple[Operation, ...]:
    """Return every operation of the hub's own API."""
    operations = (
        *envelopes.operations(core),
        *requests.OPERATIONS,
        *tasks.OPERATIONS,
        *deliveries.operations(core),
        *endpoints.OPERATIONS,
        *routes.OPERATIONS,
        *tokens.OPERATIONS,
        *tracelist.OPERATIONS,
        *traces.OPERATIONS,
        *plugins.OPERATIONS,
        *reload.operations(core),
        *admin.OPERATIONS,
        *database.OPERATIONS,
        *logs.OPERATIONS,
        *stream.OPERATIONS,
    )
    return described(core, operations)
