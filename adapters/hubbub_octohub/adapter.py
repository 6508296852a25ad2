"""OctoHub's shell: builds its rooms, starts and stops them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.clock import Ids
from hubbub.config import Settings
from hubbub.outgoing import Outgoing
from hubbub.ports import OpenAccess
from hubbub_octohub.accounts import Accounts
from hubbub_octohub.admin import admin_routes
from hubbub_octohub.api import Api, Room
from hubbub_octohub.chat import ChatCommands, callbacks_of
from hubbub_octohub.config import OctohubSettings
from hubbub_octohub.desk import Desk
from hubbub_octohub.gate import Gate, check_keys
from hubbub_octohub.housekeeping import Housekeeping
from hubbub_octohub.metrics import OctohubMetrics
from hubbub_octohub.nodes import Nodes
from hubbub_octohub.orders import Orders
from hubbub_octohub.user import Users

__all__ = ["OctohubAdapter"]

KEY_CHANGED: Final = 4401
"""Close code of a connection that an old key has let in."""


class OctohubAdapter:
    """OctoHub nodes and users."""

    name = "octohub"
    Config: type[Settings] = OctohubSettings
    reloads = frozenset({"jwt_secret", "signature_key", "ws_signature_key"})

    def __init__(self) -> None:
        self._api = Api()
        self._settings = OctohubSettings()
        self._closing: list[Callable[[], None]] = []
        self._outgoing: Outgoing | None = None
        self._loopback = True

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the endpoints; they answer 503 while the adapter is down."""
        return [*self._api.routes(self._settings), *admin_routes(lambda: self._api.room)]

    async def start(self, hub: Hub) -> None:
        """Begin to let nodes and users in.

        Raises:
            ShippedKeyError: a key that everybody knows would be used where everybody can come.
        """
        settings = self._settings = hub.settings(self.name, OctohubSettings)
        check_keys(settings, loopback=hub.is_on_loopback(self.name))
        hub.task_defaults(
            self.name,
            attempts=settings.max_attempts,
            timeout_s=settings.task_timeout,
            queue_ttl_s=settings.queue_ttl,
        )
        metrics = OctohubMetrics(hub.metrics)
        outgoing = self._outgoing = Outgoing(
            settings.callback_allow, setting="adapters.octohub.callback_allow"
        )
        gate = Gate(hub, settings)
        nodes = Nodes(hub, settings, gate, metrics)
        await gate.load()
        await nodes.load()
        housekeeping = Housekeeping(hub, settings, nodes)
        housekeeping.begin()
        self._closing.append(housekeeping.end)
        callbacks = callbacks_of(hub, outgoing)
        desk = Desk(hub, nodes, ids=Ids(hub.clock), outgoing=outgoing, callbacks=callbacks)
        users = Users(hub, Orders(desk), metrics)
        self._closing.append(hub.attach(ChatCommands(hub, desk)).close)
        callbacks.start()
        self._closing.append(callbacks.close)

        def scraped() -> None:
            metrics.show(nodes=len(nodes), users=len(users), in_hand=nodes.in_hand)

        self._closing.append(hub.metrics.on_scrape(scraped))
        self._api.room = Room(
            hub=hub,
            settings=settings,
            gate=gate,
            nodes=nodes,
            users=users,
            accounts=Accounts(
                hub,
                secret=settings.jwt_secret.reveal(),
                ttl_s=settings.jwt_ttl,
                guard=hub.auth_failures.passwords("octohub_password", settings.password_limits),
            ),
            desk=desk,
            metrics=metrics,
            public_status=settings.public_status,
        )

    async def reload(self, settings: Settings) -> None:
        """Go by the keys of other settings; what the old ones have let in ends.

        Raises:
            ShippedKeyError: a key that everybody knows would be used where everybody can come.
        """
        assert isinstance(settings, OctohubSettings)
        before, room = self._settings, self._api.room
        if room is None:
            return
        check_keys(settings, loopback=room.hub.is_on_loopback(self.name))
        self._settings = settings
        room.gate.change_keys(settings)
        addresses = settings.ws_signature_key != before.ws_signature_key
        if addresses or settings.signature_key != before.signature_key:
            room.nodes.dismiss_all("the key has changed", code=KEY_CHANGED)
        logins = settings.jwt_secret != before.jwt_secret
        if logins:
            room.accounts.change_secret(settings.jwt_secret.reveal())
        if logins or addresses:
            room.users.end_all("signed with another key")

    def open_without_secret(self) -> Sequence[OpenAccess]:
        """Return what it serves without a secret of the operator's own."""
        room = self._api.room
        if room is None:
            return ()
        found: list[OpenAccess] = []
        if room.gate.has_shipped_key:
            found.append(OpenAccess("OctoHub (shipped keys)", room.settings.allow_default_keys))
        if room.public_status is not False:
            found.append(OpenAccess("/status", room.public_status is True))
        return found

    async def stop(self) -> None:
        """Let nobody in any more, close all connections, and end."""
        room, self._api.room = self._api.room, None
        if room is not None:
            await room.nodes.stop()
            await room.users.stop()
        for close in reversed(self._closing):
            close()
        self._closing.clear()
        if self._outgoing is not None:
            await self._outgoing.close()
            self._outgoing = None
