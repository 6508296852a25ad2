"""The shell: builds the parts, serves their paths, ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute, Mount, WebSocketRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub.errors import UnsafeSettingsError
from hubbub.ports import OpenAccess
from hubbub_kenko import api
from hubbub_kenko.admin import Admin
from hubbub_kenko.apps import Apps
from hubbub_kenko.config import KenkoSettings
from hubbub_kenko.desk import Desk
from hubbub_kenko.events import Events, EventsPath
from hubbub_kenko.history import History
from hubbub_kenko.metrics import KenkoMetrics
from hubbub_kenko.rooms import Room
from hubbub_kenko.sockets import Sockets

__all__ = ["KenkoAdapter"]


class KenkoAdapter:
    """KenkoGo."""

    name = "kenko"
    Config: type[Settings] = KenkoSettings
    reloads = frozenset({"access_token"})

    def __init__(self) -> None:
        self._settings = KenkoSettings()
        self._room: Room | None = None
        self._desk: Desk | None = None
        self._events: Events | None = None
        self._admin = Admin()
        self._closing: list[Callable[[], None]] = []

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the paths; they answer 503 while the adapter is down."""
        settings = self._settings
        sockets = Sockets(lambda: self._desk)
        routes: list[BaseRoute] = [WebSocketRoute(path, sockets) for path in settings.paths]
        if settings.socketio:
            served = EventsPath(lambda: self._events)
            routes.append(Mount(settings.socketio_path, app=served))
        now = self._now
        return [*routes, *api.routes(now), *self._admin.routes(now)]

    def _now(self) -> Room | None:
        return self._room

    async def start(self, hub: Hub) -> None:
        """Begin to take clients.

        Raises:
            UnsafeSettingsError: everybody could come.
        """
        settings = self._settings = hub.settings(self.name, KenkoSettings)
        if not (settings.access_token or settings.open or hub.is_on_loopback(self.name)):
            raise UnsafeSettingsError(
                "other machines reach KenkoGo, and applications need no token; set adapters.kenko."
                "access_token (`openssl rand -hex 32`), or adapters.kenko.open = true"
            )
        history = History(hub)
        await history.begin()
        metrics = KenkoMetrics(hub.metrics)
        apps = Apps()
        desk = Desk(hub, settings, apps=apps, history=history, metrics=metrics)
        room = Room(hub, settings, apps, history, desk)
        await self._admin.start(room)
        self._closing.append(
            hub.metrics.on_scrape(lambda: metrics.show(desk.connections, len(desk.handshakes)))
        )
        self._room, self._desk = room, desk
        self._events = Events(desk) if settings.socketio else None

    async def reload(self, settings: Settings) -> None:
        """Ask for the access token of other settings; whoever came with the old one leaves."""
        assert isinstance(settings, KenkoSettings)
        if self._desk is not None:
            await self._desk.change_token(settings.access_token.reveal())

    def open_without_secret(self) -> Sequence[OpenAccess]:
        """Return what it serves without a secret."""
        settings = self._settings
        if self._room is None or settings.access_token:
            return ()
        return [OpenAccess("KenkoGo", settings.open)]

    async def stop(self) -> None:
        """Close all connections and take no more."""
        await self.pause_peers()
        await self.close_peers()
        self._room = self._desk = None
        events, self._events = self._events, None
        if events is not None:
            await events.stop()
        for close in self._closing:
            close()
        self._closing.clear()
        await self._admin.stop()

    async def pause_peers(self) -> None:
        """Tell applications that no more messages come; what they acknowledge still counts."""
        if self._desk is not None:
            await self._desk.pause_all()

    async def close_peers(self) -> None:
        """Close all connections."""
        if self._desk is not None:
            await self._desk.close_all()
