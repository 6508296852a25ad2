"""All dials of one hub, and whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hubbub.net.dialer import Dial

__all__ = ["Dials"]


class Dials:
    """All dials of one hub: begun with it, and closed with what asked for them.

    Attributes:
        stop_timeout_s: How long each may take to end its link.
    """

    def __init__(self, *, stop_timeout_s: float) -> None:
        self.stop_timeout_s = stop_timeout_s
        self._dials: dict[Dial, None] = {}
        self._begun = False

    def __iter__(self) -> Iterator[Dial]:
        return iter(list(self._dials))

    def of(self, owner: str) -> list[Dial]:
        """Return the dials of an adapter or plugin, in the order they were asked for."""
        return [dial for dial in self._dials if dial.owner == owner]

    def add(self, dial: Dial) -> Dial:
        """Take one in; it dials once the hub is ready, and is forgotten when it has ended."""
        self._dials[dial] = None
        dial.when_gone(self._forget)
        if self._begun:
            dial.begin()
        return dial

    def begin(self) -> None:
        """Dial: all that must not lose anything runs now."""
        self._begun = True
        for dial in self:
            dial.begin()

    def hold(self) -> None:
        """Dial nobody any more; links that are open stay."""
        self._begun = False
        for dial in self:
            dial.hold()

    async def stop(self, owner: str | None = None) -> None:
        """Close what one adapter or plugin asked for, or all, each within its time."""
        ending = [dial for dial in self if owner is None or dial.owner == owner]
        await asyncio.gather(*(dial.stop(self.stop_timeout_s) for dial in ending))

    def _forget(self, dial: Dial) -> None:
        self._dials.pop(dial, None)
