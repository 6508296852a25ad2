"""`/api/kenko/apps`: who is registered, who was, and what an operator may do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute

from hubbub.errors import InvalidError, NotFoundError
from hubbub_kenko.calls import Answer, Call, operations
from hubbub_kenko.history import KenkoAppRow, shown
from hubbub_kenko.rooms import Room

__all__ = ["routes"]


def routes(room: Callable[[], Room | None]) -> Sequence[BaseRoute]:
    """Return the routes."""
    return [
        operations("/apps", room, GET=_list),
        operations("/apps/{id}", room, GET=_show, DELETE=_delete),
        operations("/apps/{id}/start", room, POST=_start),
        operations("/apps/{id}/pause", room, POST=_pause),
        operations("/apps/{id}/kick", room, POST=_kick),
    ]


async def _list(call: Call) -> Answer:
    """Newest first; those who left too."""
    limit = call.limit()
    rows = await call.room.history.page(limit=limit + 1, before=_cursor(call))
    items = [_shown(call.room, row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = f"{last.registered_at}-{last.id}"
    return Answer({"items": items, "next": following})


def _cursor(call: Call) -> tuple[int, str] | None:
    cursor = call.query.get("cursor")
    if cursor is None:
        return None
    at, _, app_id = cursor.partition("-")
    if not (at.isascii() and at.isdigit() and len(at) < 19 and app_id):  # noqa: PLR2004
        raise InvalidError("?cursor= is not one that this list gave")
    return int(at), app_id


def _shown(room: Room, row: KenkoAppRow) -> dict[str, Any]:
    """Return an application as it is now: of one that is connected memory knows more."""
    app = room.apps.find(row.id)
    return shown(row if app is None else app.row())


async def _show(call: Call) -> Answer:
    app_id = call.part("id")
    app = call.room.apps.find(app_id)
    row = app.row() if app is not None else await call.room.history.find(app_id)
    if row is None:
        raise NotFoundError(f"no application {app_id[:64]!r} ever registered")
    return Answer(shown(row))


async def _start(call: Call) -> Answer:
    app = call.room.apps.get(call.part("id"))
    app.start()
    await _audit(call, "kenko.start", app.id)
    return Answer(shown(app.row()))


async def _pause(call: Call) -> Answer:
    app = call.room.apps.get(call.part("id"))
    app.pause()
    await _audit(call, "kenko.pause", app.id)
    return Answer(shown(app.row()))


async def _kick(call: Call) -> Answer:
    app = call.room.apps.get(call.part("id"))
    app.kick()
    await _audit(call, "kenko.kick", app.id)
    return Answer(shown(app.row()))


async def _delete(call: Call) -> Answer:
    """Disconnect it, and forget that it was ever here."""
    app_id = call.part("id")
    app = call.room.apps.find(app_id)
    if app is not None:
        app.kick()
    elif await call.room.history.find(app_id) is None:
        raise NotFoundError(f"no application {app_id[:64]!r} ever registered")
    await call.room.history.remove(app_id)
    await _audit(call, "kenko.delete", app_id)
    return Answer(status=204)


async def _audit(call: Call, act: str, app_id: str) -> None:
    await call.room.hub.audit(call.principal.name, act, app_id)
