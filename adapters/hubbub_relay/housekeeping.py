"""What is old: log records that retention or a clear has left behind."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from hubbub import Hub
from hubbub.errors import HubError
from hubbub.file_modes import make_folder, open_binary
from hubbub_relay import events
from hubbub_relay.config import RelaySettings
from hubbub_relay.events import Event
from hubbub_relay.sagas import purge_sagas
from hubbub_relay.wire import log_record

__all__ = ["keep_house", "purge"]

HOUSEKEEPING_S: Final = 60.0

RECOVERABLE_MS: Final = 7 * 86_400_000
"""How long cleared records can be brought back."""

DAY_MS: Final = 86_400_000

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def keep_house(hub: Hub, settings: RelaySettings) -> None:
    """Purge every minute, for ever."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        try:
            await purge(hub, settings)
        except (HubError, OSError) as error:
            log.warning("relay.purge_failed", error=str(error))


async def purge(hub: Hub, settings: RelaySettings) -> int:
    """Remove records that are too old, or were cleared long ago; returns how many went.

    None while the time is not to be trusted.
    """
    now_ms = hub.clock.now_us() // 1000
    if hub.retention_hold is not None:
        return 0
    days = settings.retention_days
    before_ms = now_ms - days * DAY_MS if days else 0
    removed = 0
    while True:
        old = await hub.read(
            lambda session: events.outdated(
                session, before_ms=before_ms, cleared_before_ms=now_ms - RECOVERABLE_MS
            ),
            patient=True,
        )
        if not old:
            return removed
        if settings.archive_dir:
            await asyncio.to_thread(_archive, Path(settings.archive_dir), old)
        await hub.execute(
            *events.purge(old[-1].id, callbacks_before_ms=now_ms - DAY_MS),
            purge_sagas(before_ms),
            patient=True,
        )
        removed += len(old)


def _archive(folder: Path, old: Sequence[Event]) -> None:
    """Append records to the file of the month they are of; gzip members follow each other."""
    make_folder(folder)
    by_file: dict[str, list[bytes]] = {}
    for event in old:
        month = f"{datetime.fromtimestamp(event.ts_ms // 1000, UTC):%Y-%m}"
        line = log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
        by_file.setdefault(f"relay-{month}.jsonl.gz", []).append(line + b"\n")
    for name, lines in by_file.items():
        with open_binary(folder / name, "ab") as file, gzip.open(file, "ab") as packed:
            packed.writelines(lines)
