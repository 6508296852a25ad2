"""The figures over HTTP."""

from __future__ import annotations

import asyncio

from starlette.routing import BaseRoute

from hubbub.web import Call, Operation, Reply, Spec, operation_routes
from hubbub_system.figures import Figures, read_figures

__all__ = ["routes"]


async def show(call: Call) -> Reply:
    """Show the machine and the process, now."""
    del call
    return Reply(200, await asyncio.to_thread(read_figures))


def routes() -> list[BaseRoute]:
    """Return the one path."""
    spec = Spec(answers={200: Figures})
    operation = Operation("GET", "/api/system", show, "The machine", ("read",), spec)
    return [*operation_routes([operation])]
