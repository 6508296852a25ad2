"""The mirror file: every log record as a line, for workers that read a file.

Output only. The file's own last line says where to go on after a restart; a line that was cut off
by a crash is taken away and written again. Clearing the log gives a fresh file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec
import structlog

from hubbub.errors import HubError
from hubbub_relay.events import Event
from hubbub_relay.wire import log_record

__all__ = ["Mirror", "last_id"]

POLL_S: Final = 1.0
TAIL_BYTES: Final = 4 * 1024 * 1024
"""How far from the end the last whole line is looked for."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ReadAfter = Callable[[int], Awaitable[tuple[Sequence[Event], int]]]


def last_id(path: Path) -> int:
    """Return the id in the last whole line of a file, and cut off what follows that line.

    Returns:
        0 when there is no file, no line, or no id in the line (a file of the original).
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        whole, newline, _ = tail.rpartition(b"\n")
        if not newline:
            if not start:
                file.truncate(0)
            return 0
        file.truncate(start + len(whole) + 1)
    try:
        record: object = msgspec.json.decode(whole.rpartition(b"\n")[2])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 0
    number = cast("dict[str, object]", record).get("id") if isinstance(record, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


class Mirror:
    """Follows the log and writes it to the file.

    Attributes:
        lag: Records that are in the log and not yet in the file.
    """

    def __init__(self, path: Path, read_after: ReadAfter) -> None:
        self._path = path
        self._read_after = read_after
        self._position = 0
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self.lag = 0

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        more = await self._find_place()
        while True:
            try:
                more = await self.step()
            except (HubError, OSError) as error:
                log.warning("relay.mirror_failed", file=str(self._path), error=str(error))
                await asyncio.sleep(POLL_S)
                more = await self._find_place()
            if not more:
                await self._rest()

    async def _find_place(self) -> bool:
        """Go on where the file ends; False when it cannot be read."""
        try:
            self._position = await asyncio.to_thread(last_id, self._path)
        except OSError as error:
            log.warning("relay.mirror_unreadable", file=str(self._path), error=str(error))
            return False
        return True

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def step(self) -> bool:
        """Write one step's worth of new records; True when there may be more."""
        async with self._writing:
            found, newest = await self._read_after(self._position)
            mirrored = [event for event in found if event.mirrored]
            if mirrored:
                await asyncio.to_thread(self._append, mirrored)
            if found:
                self._position = found[-1].id
            self.lag = max(0, newest - self._position) if found else 0
            return self.lag > 0

    async def rotate(self, position: int, *, now_ms: int) -> None:
        """Put the file aside and begin a new one after this id; the log was cleared."""
        async with self._writing:
            self._position = max(self._position, position)
            await asyncio.to_thread(self._put_aside, now_ms)

    def _append(self, mirrored: Sequence[Event]) -> None:
        lines = [
            log_record(event.event, event.body, ts_ms=event.ts_ms, number=event.id)
            for event in mirrored
        ]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"\n".join(lines) + b"\n")

    def _put_aside(self, now_ms: int) -> None:
        if self._path.exists():
            aside = self._path.with_name(f"{self._path.stem}.{now_ms}{self._path.suffix}")
            self._path.rename(aside)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
