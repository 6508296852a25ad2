"""hub.toml read again over the API."""

from __future__ import annotations

import msgspec

from hubbub.core import Core
from hubbub.reload import Reloads
from hubbub.web.calls import Call, Operation, Reply, Spec

__all__ = ["operations"]


class ReloadView(msgspec.Struct, forbid_unknown_fields=True):
    """What a reload did, as dotted keys."""

    applied: list[str]
    needs_restart: list[str]


def operations(core: Core) -> tuple[Operation, ...]:
    """Return the operation that reloads."""
    reloads = Reloads(core)

    async def reload(call: Call) -> Reply:
        done = await reloads.reload(by=call.principal.name)
        return Reply(200, ReloadView(list(done.applied), list(done.needs_restart)))

    return (
        Operation(
            "POST",
            "/api/v1/reload",
            reload,
            "Read hub.toml again; all of it or nothing",
            spec=Spec(answers={200: ReloadView}, problems=(422, 503)),
        ),
    )
