"""The shell: builds the parts, serves their paths, ends them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub_kenko import api
from hubbub_kenko.admin import Admin
from hubbub_kenko.apps import Apps
from hubbub_kenko.config import KenkoSettings
from hubbub_kenko.history import History
from hubbub_kenko.rooms import Room

__all__ = ["KenkoAdapter"]


class KenkoAdapter:
    """KenkoGo."""

    name = "kenko"
    Config: type[Settings] = KenkoSettings

    def __init__(self) -> None:
        self._room: Room | None = None
        self._admin = Admin()

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the paths; they answer 503 while the adapter is down."""
        return [*api.routes(self._now), *self._admin.routes(self._now)]

    def _now(self) -> Room | None:
        return self._room

    async def start(self, hub: Hub) -> None:
        """Begin to take clients."""
        settings = hub.settings(self.name, KenkoSettings)
        history = History(hub)
        await history.begin()
        room = Room(hub, settings, Apps(), history)
        await self._admin.start(room)
        self._room = room

    async def stop(self) -> None:
        """Take nobody any more, and end."""
        self._room = None
        await self._admin.stop()
