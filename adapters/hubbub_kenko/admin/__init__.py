"""The features an operator sees below `/api/kenko`, apart from the list of applications.

What the hub and its plugins have anyway is handed on (`faces`); the simulator, packages,
deployments and runners are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hubbub_kenko.admin.tables import (
    KenkoDeploymentRow,
    KenkoMessageRow,
    KenkoPackageRow,
    KenkoRunnerRow,
)

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from starlette.routing import BaseRoute

    from hubbub.ports import Link
    from hubbub_kenko.admin.features import Features
    from hubbub_kenko.rooms import Room

__all__ = ["TABLES", "Admin"]

TABLES: Final[Sequence[type[SQLModel]]] = (
    KenkoMessageRow,
    KenkoPackageRow,
    KenkoDeploymentRow,
    KenkoRunnerRow,
)
"""Tables of these features; their names begin with `kenko_`."""


class Admin:
    """All of these features of one hub."""

    def __init__(self) -> None:
        self._features: Features | None = None
        self._link: Link | None = None

    def routes(self, room: Callable[[], Room | None]) -> Sequence[BaseRoute]:
        """Return the routes; `room()` is None while the adapter is down."""
        from hubbub_kenko.admin import faces, paths  # noqa: PLC0415  # only where a hub serves

        def features() -> Features | None:
            return None if room() is None else self._features

        return [*paths.routes(features), *faces.routes(room)]

    async def start(self, room: Room) -> None:
        """Begin; what shall run runs again."""
        from hubbub_kenko.admin.deployments import Deployments  # noqa: PLC0415
        from hubbub_kenko.admin.features import Features  # noqa: PLC0415
        from hubbub_kenko.admin.shelf import Shelf  # noqa: PLC0415
        from hubbub_kenko.admin.simulator import Simulator  # noqa: PLC0415

        simulator, shelf = Simulator(room.hub), Shelf(room.hub)
        deployments = Deployments(room.hub, room.apps, shelf)
        if room.settings.runners:
            await deployments.begin()
        self._features = Features(room, simulator, shelf, deployments)
        self._link = room.hub.attach(simulator)

        def render(key: str, args: Mapping[str, Any], lang: str) -> str:
            return room.hub.translate(key, args, lang) or key

        room.desk.render = render

    async def stop(self) -> None:
        """End what runs here; it runs again when the hub does."""
        features, self._features = self._features, None
        if self._link is not None:
            self._link.close()
            self._link = None
        if features is not None:
            await features.deployments.stop()
