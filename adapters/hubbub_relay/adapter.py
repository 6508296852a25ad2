"""The relay's shell: builds its rooms, starts and stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub.outgoing import Outgoing
from hubbub.ports import Record, Row
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


class RelayAdapter:
    """The relay ("Conversation Bus")."""

    name = "relay"
    Config: type[Settings] = RelaySettings

    def __init__(self) -> None:
        self._api = Api()
        self._prefix = str(RelaySettings.model_fields["prefix"].default)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: list[Callable[[], None]] = []
        self._outgoing: Outgoing | None = None

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the endpoints; they answer 503 while the adapter is down."""
        return self._api.routes(self._prefix)

    async def start(self, hub: Hub) -> None:
        """Bring the names back, and begin to answer."""
        settings = hub.settings(self.name, RelaySettings)
        self._prefix = settings.prefix
        metrics = RelayMetrics(hub.metrics)
        keys = Keys.of(settings, loopback=hub.loopback)
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

    async def stop(self) -> None:
        """Answer nobody any more, and end."""
        self._api.room = None
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

    return Mirror(Path(settings.mirror_file), read_after)
