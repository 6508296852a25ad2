"""The relay's shell: builds its rooms, starts and stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub.outgoing import Outgoing
from hubbub.ports import Credentials, OpenAccess, Record, Row
from hubbub_relay import events
from hubbub_relay.afterwards import Afterwards
from hubbub_relay.api import Api
from hubbub_relay.callbacks import callbacks_of
from hubbub_relay.calls import Room
from hubbub_relay.config import RelaySettings
from hubbub_relay.desk import Desk
from hubbub_relay.endpoint import Logged, RelayName
from hubbub_relay.events import Event
from hubbub_relay.gauges import Gauges
from hubbub_relay.housekeeping import keep_house
from hubbub_relay.keys import Keys
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.mirror import Mirror
from hubbub_relay.names import Names
from hubbub_relay.results import Results
from hubbub_relay.sending import Sending

__all__ = ["RelayAdapter"]

RESTART_US: Final = 1_000_000
"""A relay that is back so soon was restarted: waits and leases of its keys stay."""


class RelayAdapter:
    """The relay ("Conversation Bus")."""

    name = "relay"
    Config: type[Settings] = RelaySettings
    reloads = frozenset({"api_keys"})

    def __init__(self) -> None:
        self._api = Api()
        self._prefix = str(RelaySettings.model_fields["prefix"].default)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: list[Callable[[], None]] = []
        self._outgoing: Outgoing | None = None
        self._hub: Hub | None = None
        self._keys: Keys | None = None
        self._credentials: Credentials | None = None

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the endpoints; they answer 503 while the adapter is down."""
        return self._api.routes(self._prefix)

    async def start(self, hub: Hub) -> None:
        """Bring the names back, and begin to answer."""
        settings = hub.settings(self.name, RelaySettings)
        self._prefix = settings.prefix
        metrics = RelayMetrics(hub.metrics)
        keys = self._keys_of(hub, settings)
        outgoing = self._outgoing = Outgoing(
            settings.callback_allow, setting="adapters.relay.callback_allow"
        )
        logged = Logged()
        mirror = _mirror(hub, settings)
        wake = (lambda: None) if mirror is None else mirror.wake

        def now_ms() -> int:
            return hub.clock.now_us() // 1000

        async def keep(rows: Sequence[Row]) -> None:
            await hub.keep(Record(rows=list(rows)))

        def ended(task_id: str, state: str) -> None:
            metrics.ended[state] += 1
            afterwards.ended(task_id)

        def make(name: str) -> RelayName:
            return RelayName(
                name, settings, logged=logged, now_ms=now_ms, keep=keep, ended=ended
            )  # fmt: skip

        async def make_up(task_id: str, body: bytes) -> None:
            await sending.make_up(task_id, body)

        callbacks = callbacks_of(
            hub, outgoing, attempts=settings.callback_attempts, secret_of=keys.secret_of
        )
        afterwards = Afterwards(hub, now_ms, make_up, callbacks.address_of)
        names = Names(hub, limit=settings.max_names, make=make)
        sending = Sending(
            hub,
            names=names,
            logged=logged,
            afterwards=afterwards,
            keys=keys,
            outgoing=outgoing,
            wake=wake,
        )
        names.load()
        self._closing.append(names.close)
        callbacks.start()
        self._closing.append(callbacks.close)
        await afterwards.load()
        self._spawn(hub, afterwards.run())
        if mirror is not None:
            self._spawn(hub, mirror.run())
        self._spawn(hub, keep_house(hub, settings))
        gauges = Gauges(
            hub,
            metrics,
            stale_after_s=settings.stale_after,
            lag=lambda: mirror.lag if mirror else 0,
        )
        self._closing.append(gauges.show())
        self._api.room = Room(
            hub=hub,
            sending=sending,
            desk=Desk(hub, settings, names=names, metrics=metrics, mirror=mirror),
            results=Results(hub, settings, logged=logged, metrics=metrics, ended=ended, wake=wake),
            keys=keys,
            metrics=metrics,
            public_read=settings.public_read,
            max_body_bytes=settings.max_body_bytes,
        )

    async def reload(self, settings: Settings) -> None:
        """Accept the keys of other settings; what was opened with a key that is gone ends."""
        assert isinstance(settings, RelaySettings)
        if self._keys is not None:
            self._keys.change(settings.api_keys, allow_default_key=settings.allow_default_key)

    def _keys_of(self, hub: Hub, settings: RelaySettings) -> Keys:
        """Return the keys; what was opened with one that is the same as before a restart stays."""
        allowed = settings.allow_default_key
        if self._keys is not None and self._credentials is hub.credentials:
            self._keys.change(settings.api_keys, allow_default_key=allowed)
            return self._keys
        self._hub, self._credentials = hub, hub.credentials
        self._keys = Keys(settings.api_keys, allow_default_key=allowed, credentials=hub.credentials)
        return self._keys

    def _end_keys(self) -> None:
        """End what was opened with keys, if the relay did not come back."""
        if self._api.room is None and self._keys is not None:
            self._keys.close()
            self._keys = None

    def open_without_secret(self) -> Sequence[OpenAccess]:
        """Return what it serves without a secret of the operator's own."""
        room = self._api.room
        if room is None:
            return ()
        found: list[OpenAccess] = []
        if room.keys.takes_shipped_key:
            found.append(OpenAccess("relay (shipped key)", room.keys.allows_shipped_key))
        if room.public_read is not False:
            found.append(OpenAccess("relay logs and task states", room.public_read is True))
        return found

    async def stop(self) -> None:
        """Answer nobody any more, and end."""
        self._api.room = None
        if self._hub is not None:
            clock = self._hub.clock
            clock.call_at(clock.now_us() + RESTART_US, self._end_keys)
        for close in reversed(self._closing):
            close()
        self._closing.clear()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        if self._outgoing is not None:
            await self._outgoing.close()
            self._outgoing = None

    def _spawn(self, hub: Hub, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(hub.spawn(work))


def _mirror(hub: Hub, settings: RelaySettings) -> Mirror | None:
    if not settings.mirror_file:
        return None

    async def read_after(number: int) -> tuple[Sequence[Event], int]:
        return await hub.read(lambda session: events.after(session, number))

    return Mirror(Path(settings.mirror_file), read_after, partial(hub.lack, "mirror file"))
