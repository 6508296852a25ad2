"""The features an operator sees below `/api/kenko`, apart from the list of applications.

Seam: the adapter makes one `Admin`, asks it for `routes()` when the hub is served, and calls
`start(room)` and `stop()` with its own. `room` is everything there is to work with, runners
included: see `hubbub_kenko.rooms.Room` and `hubbub_kenko.apps.Apps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from starlette.routing import BaseRoute

    from hubbub_kenko.rooms import Room

__all__ = ["TABLES", "Admin"]

TABLES: Final[Sequence[type[SQLModel]]] = ()
"""Tables of these features; their names begin with `kenko_`."""


class Admin:
    """All of these features of one hub."""

    def routes(self, room: Callable[[], Room | None]) -> Sequence[BaseRoute]:
        """Return the routes; `room()` is None while the adapter is down."""
        del room
        return ()

    async def start(self, room: Room) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""
