"""The relay's shell: builds its rooms, starts and stops them, looks after what is old."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub.errors import HubError
from hubbub.outgoing import Outgoing
from hubbub.ports import Link, Record, Row
from hubbub_relay import events
from hubbub_relay.afterwards import Afterwards
from hubbub_relay.api import Api, Room
from hubbub_relay.callbacks import WebhookEndpoint
from hubbub_relay.config import RelaySettings
from hubbub_relay.desk import Desk
from hubbub_relay.endpoint import Logged, RelayName
from hubbub_relay.events import Event
from hubbub_relay.keys import Keys
from hubbub_relay.metrics import RelayMetrics
from hubbub_relay.mirror import Mirror
from hubbub_relay.names import Names
from hubbub_relay.results import Results
from hubbub_relay.sagas import purge_sagas
from hubbub_relay.wire import log_record

__all__ = ["RelayAdapter"]

HOUSEKEEPING_S: Final = 60.0
REFRESH_US: Final = 2_000_000
"""Gauges are read again at a scrape when they are older than this."""

RECOVERABLE_MS: Final = 7 * 86_400_000
"""How long cleared records can be brought back."""

DAY_MS: Final = 86_400_000

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


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
        self._refreshed_us = 0
        self._refreshing: asyncio.Task[None] | None = None

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the endpoints; they answer 503 while the adapter is down."""
        return self._api.routes(self._prefix)

    async def start(self, hub: Hub) -> None:
        """Bring the names back, and begin to answer."""
        settings = hub.settings(self.name, RelaySettings)
        self._prefix = settings.prefix
        metrics = RelayMetrics(hub.metrics)
        keys = Keys.of(settings, loopback=hub.loopback)
        outgoing = self._outgoing = Outgoing(settings.callback_allow)
        logged = Logged()

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
            await desk.make_up(task_id, body)

        afterwards = Afterwards(hub, now_ms, make_up)
        mirror = self._mirror(hub, settings)
        wake = (lambda: None) if mirror is None else mirror.wake
        names = Names(hub, limit=settings.max_names, make=make)
        desk = Desk(
            hub,
            settings,
            names=names,
            logged=logged,
            afterwards=afterwards,
            outgoing=outgoing,
            metrics=metrics,
            mirror=mirror,
        )
        names.load()
        self._closing.append(names.close)
        link: Link = hub.attach(
            WebhookEndpoint(
                attempts=settings.callback_attempts, outgoing=outgoing, secret_of=keys.secret_of
            )
        )
        self._closing.append(link.close)
        await afterwards.load()
        self._spawn(hub, afterwards.run())
        if mirror is not None:
            self._spawn(hub, mirror.run())
        self._spawn(hub, self._keep_house(hub, settings))
        self._show_at_scrape(hub, settings, metrics, mirror)
        self._api.room = Room(
            hub=hub,
            desk=desk,
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

    def _mirror(self, hub: Hub, settings: RelaySettings) -> Mirror | None:
        if not settings.mirror_file:
            return None

        async def read_after(number: int) -> tuple[Sequence[Event], int]:
            return await hub.read(lambda session: events.after(session, number))

        return Mirror(Path(settings.mirror_file), read_after)

    # Gauges

    def _show_at_scrape(
        self, hub: Hub, settings: RelaySettings, metrics: RelayMetrics, mirror: Mirror | None
    ) -> None:
        """Read the gauges in the background of a scrape; what is shown is at most one old."""

        async def refresh() -> None:
            now_us = hub.clock.now_us()
            stale_us = now_us - int(settings.stale_after * 1e6)

            waiting = await hub.read(
                lambda session: events.waiting(session, stale_before_us=stale_us)
            )
            metrics.show(waiting, now_us=now_us, lag=lambda: mirror.lag if mirror else 0)

        def scraped() -> None:
            now_us = hub.clock.now_us()
            running = self._refreshing is not None and not self._refreshing.done()
            if running or (self._refreshed_us and now_us - self._refreshed_us < REFRESH_US):
                return
            self._refreshed_us = now_us
            self._refreshing = hub.spawn(refresh())

        self._closing.append(hub.metrics.on_scrape(scraped))
        scraped()

    # What is old

    async def _keep_house(self, hub: Hub, settings: RelaySettings) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                await self.purge(hub, settings)
            except (HubError, OSError) as error:
                log.warning("relay.purge_failed", error=str(error))

    async def purge(self, hub: Hub, settings: RelaySettings) -> int:
        """Remove records that are too old, or were cleared long ago; returns how many went."""
        now_ms = hub.clock.now_us() // 1000
        days = settings.retention_days
        before_ms = now_ms - days * DAY_MS if days else 0
        removed = 0
        while True:
            old = await hub.read(
                lambda session: events.outdated(
                    session, before_ms=before_ms, cleared_before_ms=now_ms - RECOVERABLE_MS
                )
            )
            if not old:
                return removed
            if settings.archive_dir:
                await asyncio.to_thread(_archive, Path(settings.archive_dir), old)
            await hub.execute(
                *events.purge(old[-1].id, callbacks_before_ms=now_ms - DAY_MS),
                purge_sagas(before_ms),
            )
            removed += len(old)


def _archive(folder: Path, old: Sequence[Event]) -> None:
    """Append records to the file of the month they are of; gzip members follow each other."""
    folder.mkdir(parents=True, exist_ok=True)
    by_file: dict[str, list[bytes]] = {}
    for event in old:
        month = f"{datetime.fromtimestamp(event.ts_ms // 1000, UTC):%Y-%m}"
        line = log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
        by_file.setdefault(f"relay-{month}.jsonl.gz", []).append(line + b"\n")
    for name, lines in by_file.items():
        with gzip.open(folder / name, "ab") as file:
            file.writelines(lines)
