"""Log lines as events on `hub.log`, while a route or somebody live wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hubbub.envelope import Envelope, rfc3339
from hubbub.errors import HubError
from hubbub.observe.logbook import TELLING, Line, LogBook
from hubbub.ports import HubApi, Timer

__all__ = ["SUBJECT", "TYPE", "LogTelling", "view_of"]

SUBJECT: Final = "hub.log"
TYPE: Final = "hubbub.log.v1"

EVERY_US: Final = 250_000
"""How long lines gather before they are told."""

MAX_TOLD: Final = 200
"""Lines that are told at once; of more only the newest, and how many were left out."""

KNOWN: Final = ("event", "level", "logger", "timestamp")


def _nothing() -> None:
    """Forget nothing: nobody watches."""


def view_of(line: Line) -> dict[str, object]:
    """Return a line as it is shown: number, time, level, logger, event and what else it says."""
    try:
        said: dict[str, Any] = msgspec.json.decode(line.text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        said = {"event": line.text, "cut": True}
    return {
        "number": line.number,
        "at": rfc3339(line.time_us),
        "level": str(said.get("level", "")) or "info",
        "logger": line.logger,
        "event": str(said.get("event", "")),
        "detail": {key: value for key, value in said.items() if key not in KNOWN},
    }


class LogTelling:
    """Watches the book and publishes its lines."""

    def __init__(self, book: LogBook, hub: HubApi) -> None:
        self._book = book
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget: Callable[[], None] = _nothing
        self._timer: Timer | None = None
        self._woken = False
        self._told = 0

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._forget = self._book.watch(self._logged)

    def stop(self) -> None:
        """End; what was not told stays in the book."""
        self._forget()
        self._forget = _nothing
        if self._timer is not None:
            self._timer.cancel()

    def _logged(self) -> None:
        """Note that there is a line, on whatever thread it was logged."""
        if not self._woken and self._loop is not None and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        clock = self._hub.clock
        self._timer = clock.call_at(clock.now_us() + EVERY_US, self._due)

    def _due(self) -> None:
        self._woken = False
        lines = [line for line in self._book.after(self._told) if not line.echo]
        self._told = self._book.newest
        if lines and self._hub.wanted(SUBJECT, TYPE):
            self._hub.spawn(self._tell(lines))

    async def _tell(self, lines: list[Line]) -> None:
        TELLING.set(True)
        left_out = max(0, len(lines) - MAX_TOLD)
        for line in lines[-MAX_TOLD:]:
            data = view_of(line) | ({"left_out": left_out} if left_out else {})
            left_out = 0
            try:
                await self._hub.publish(
                    Envelope.new(
                        source=SUBJECT, subject=SUBJECT, type=TYPE, data=data, durable=False
                    )
                )
            except HubError:
                return
