"""Counts, rolls up each minute, reads series, forgets what is too old."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from hubbub import Hub
from hubbub.errors import HubError
from hubbub.ports import Timer
from hubbub_statistics.config import StatSettings
from hubbub_statistics.counting import Counting
from hubbub_statistics.series import Series, Window
from hubbub_statistics.tables import GAUGE, USER, Read, adding, forgetting, read_series, users_of

__all__ = ["MAX_FILES", "MINUTE_S", "Keeper"]

MINUTE_S: Final = 60
HOUR_S: Final = 3600

MAX_FILES: Final = 100_000
"""Files whose sizes are added up; the rest of a larger data directory is not counted."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Keeper:
    """The statistics of one hub."""

    def __init__(self, hub: Hub, settings: StatSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._counting = Counting(self._begun)
        self._gauges: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._measured_s = self._forgot_s = 0
        self._minute_s = self._this_minute()
        self._timer: Timer | None = None
        self._unobserve = hub.observe(
            accepted=self._counting.on_accepted, ended=self._counting.on_ended
        )

    async def stop(self) -> None:
        """Keep what was counted last, and end."""
        if self._timer is not None:
            self._timer.cancel()
        self._unobserve()
        rows = list(self._rows(self._counting.take()))
        if rows:
            await self._hub.execute(adding(rows))

    async def series(self, window: Window) -> Series:
        """Return what was counted in a window, the minute that runs included."""
        kept = await self._hub.read(
            lambda session: read_series(session, from_s=window.from_s, bucket_s=window.bucket_s)
        )
        users = await self._hub.read(
            lambda session: users_of(session, from_s=window.from_s, bucket_s=window.bucket_s)
        )
        await self._measure()
        if self._counting.empty:
            self._minute_s = self._this_minute()
        running = list(self._rows(self._counting))
        return Series.of(window, kept, users, running)

    # Every minute in which anything happens

    def _this_minute(self) -> int:
        now_s = self._hub.clock.now_us() // 1_000_000
        return now_s - now_s % MINUTE_S

    def _begun(self) -> None:
        self._minute_s = self._this_minute()
        self._timer = self._hub.clock.call_at((self._minute_s + MINUTE_S) * 1_000_000, self._due)

    def _due(self) -> None:
        rows = list(self._rows(self._counting.take()))
        self._names.clear()
        self._hub.spawn(self._roll_up(rows))

    async def _roll_up(self, rows: list[Read]) -> None:
        now_s = self._this_minute()
        statements = [adding(rows)]
        if now_s - self._forgot_s >= HOUR_S and self._hub.retention_hold is None:
            self._forgot_s = now_s
            statements += forgetting(
                before_s=now_s - int(self._settings.kept),
                users_before_s=now_s - int(self._settings.users_kept),
            )
        try:
            await self._hub.execute(*statements, patient=len(statements) > 1)
            await self._measure()
        except HubError as error:
            log.warning("stat.not_kept", error=str(error), rows=len(rows))

    async def _measure(self) -> None:
        """Measure what is not counted, at most once a minute."""
        now_s = self._this_minute()
        if now_s == self._measured_s:
            return
        self._measured_s = now_s
        self._gauges["db_bytes"] = await self._hub.database_bytes()
        self._gauges["fs_bytes"] = await asyncio.to_thread(_folder_bytes, self._hub.data_dir)

    def _rows(self, counted: Counting) -> Iterator[Read]:
        """Yield the figures of the minute that runs; none of what nobody did."""
        ts = self._minute_s
        if counted.accepted:
            yield ts, "messages_in", "", counted.accepted
        if counted.delivered:
            yield ts, "messages_out", "", counted.delivered
        for address, calls in counted.called.items():
            yield ts, "calls", self._name_of(address), calls
        if counted.users:
            yield ts, "active_users", GAUGE, len(counted.users)
        for user, times in counted.users.items():
            yield ts, USER, user, times
        for metric, value in self._gauges.items():
            yield ts, metric, GAUGE, value

    def _name_of(self, address: str) -> str:
        """Return `<adapter>:<name>` of an endpoint with a name, else its address."""
        known = self._names.get(address)
        if known is None:
            endpoints = self._hub.known(address) if address != "other" else ()
            name = endpoints[0].labels.get("name") if len(endpoints) == 1 else None
            known = f"{address.split('.', 1)[0]}:{name}" if name else address
            self._names[address] = known
        return known


def _folder_bytes(folder: Path) -> int:
    """Return what the files below a folder take together."""
    total = seen = 0
    for path, _, files in os.walk(folder):
        for name in files:
            seen += 1
            if seen > MAX_FILES:
                return total
            try:
                total += Path(path, name).lstat().st_size
            except OSError:
                continue
    return total
