"""`/api/kenko/apps`: who is registered, who was, and what an operator may do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute

from hubbub.errors import NotFoundError
from hubbub.web import Call, Reply, limit_of
from hubbub_kenko import shapes
from hubbub_kenko.history import KenkoAppRow, shown
from hubbub_kenko.operations import Path, operations, place_of, placed
from hubbub_kenko.rooms import Room

__all__ = ["routes"]


def routes(room: Callable[[], Room | None]) -> Sequence[BaseRoute]:
    """Return the routes."""
    paths: list[Path[Room]] = [
        Path("GET", "/apps", _list, "Applications, the newest first", shapes.LIST),
        Path("GET", "/apps/{id}", _show, "An application", shapes.SHOW),
        Path("DELETE", "/apps/{id}", _delete, "Disconnect and forget one", shapes.FORGET),
        Path("POST", "/apps/{id}/start", _start, "Let one run", shapes.ACT),
        Path("POST", "/apps/{id}/pause", _pause, "Let one pause", shapes.ACT),
        Path("POST", "/apps/{id}/kick", _kick, "Disconnect one", shapes.ACT),
    ]
    return operations(room, paths)


async def _list(room: Room, call: Call) -> Reply:
    """Newest first; those who left too."""
    limit = limit_of(call)
    rows = await room.history.page(limit=limit + 1, before=place_of(call))
    return placed(
        rows, limit, lambda row: (row.registered_at, row.id), lambda row: _shown(room, row)
    )


def _shown(room: Room, row: KenkoAppRow) -> dict[str, Any]:
    """Return an application as it is now: of one that is connected memory knows more."""
    app = room.apps.find(row.id)
    return shown(row if app is None else app.row())


async def _show(room: Room, call: Call) -> Reply:
    app_id = call.params["id"]
    app = room.apps.find(app_id)
    row = app.row() if app is not None else await room.history.find(app_id)
    if row is None:
        raise NotFoundError(f"no application {app_id[:64]!r} ever registered")
    return Reply(200, shown(row))


async def _start(room: Room, call: Call) -> Reply:
    app = room.apps.get(call.params["id"])
    app.start()
    await _audit(room, call, "kenko.start", app.id)
    return Reply(200, shown(app.row()))


async def _pause(room: Room, call: Call) -> Reply:
    app = room.apps.get(call.params["id"])
    app.pause()
    await _audit(room, call, "kenko.pause", app.id)
    return Reply(200, shown(app.row()))


async def _kick(room: Room, call: Call) -> Reply:
    app = room.apps.get(call.params["id"])
    app.kick()
    await _audit(room, call, "kenko.kick", app.id)
    return Reply(200, shown(app.row()))


async def _delete(room: Room, call: Call) -> Reply:
    """Disconnect it, and forget that it was ever here."""
    app_id = call.params["id"]
    app = room.apps.find(app_id)
    if app is not None:
        app.kick()
    elif await room.history.find(app_id) is None:
        raise NotFoundError(f"no application {app_id[:64]!r} ever registered")
    await room.history.remove(app_id)
    await _audit(room, call, "kenko.delete", app_id)
    return Reply(204)


async def _audit(room: Room, call: Call, act: str, app_id: str) -> None:
    await room.hub.audit(call.principal.name, act, app_id)
