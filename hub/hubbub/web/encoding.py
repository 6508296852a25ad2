"""Answers with a long list in them: encoded item by item, while others are served in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Final

from starlette.types import Send

from hubbub.envelope import encode_json
from hubbub.portions import PAGE_BYTES, PORTION_BYTES

__all__ = ["Listing", "Page", "Turns", "in_portions", "send_portions"]

TURN_S: Final = 0.002
"""How long a long answer is worked on before others have their turn."""


class Turns:
    """Lets others run while something long is done on the event loop."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = perf_counter()

    async def give(self) -> None:
        """Let others run, where this has run for its time; called after each small step."""
        if perf_counter() - self._began >= TURN_S:
            await asyncio.sleep(0)
            self._began = perf_counter()


def in_portions(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield parts of a body in portions: small ones joined, large ones cut."""
    for part in _joined(parts):
        for at in range(0, len(part), PORTION_BYTES):
            yield part[at : at + PORTION_BYTES]


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts until they are a portion; a larger part stays as it is."""
    small: list[bytes] = []
    size = 0
    for part in parts:
        if small and size + len(part) > PORTION_BYTES:
            yield b"".join(small)
            small, size = [], 0
        if len(part) >= PORTION_BYTES:
            yield part
        else:
            small.append(part)
            size += len(part)
    if small:
        yield b"".join(small)


async def send_portions(send: Send, portions: list[bytes]) -> None:
    """Send the body of an answer, and let go of each portion that is sent."""
    portions.reverse()
    while portions:
        for piece in in_portions((portions.pop(),)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


class Listing:
    """A JSON object whose last list may be long.

    Attributes:
        items: What is in the list; bytes are JSON already. An iterator makes them as they are
            encoded, so that making them holds up nobody either.
    """

    def __init__(
        self, name: str, items: Iterable[object], *, before: Mapping[str, object] | None = None
    ) -> None:
        """Say what it is.

        Args:
            name: The member that the list is.
            before: Members before it.
        """
        self.items: Final = items
        self._opening: Final = encode_json({**(before or {}), name: ()})[:-2]

    async def encode(self) -> list[bytes]:
        """Return its JSON, in portions."""
        parts: list[bytes] = [self._opening]
        turns, shown, total_bytes = Turns(), 0, 0
        is_whole = True
        for item in self.items:
            encoded = item if isinstance(item, bytes) else encode_json(item)
            total_bytes += len(encoded)
            if shown and self._is_full(total_bytes):
                is_whole = False
                break
            if shown:
                parts.append(b",")
            parts.append(encoded)
            shown += 1
            await turns.give()
        parts.append(self._closing(shown, is_whole=is_whole))
        portions: list[bytes] = []
        for portion in _joined(parts):
            portions.append(portion)
            await turns.give()
        return portions

    def _is_full(self, total_bytes: int) -> bool:
        """Tell whether items of so many bytes are too much."""
        del total_bytes
        return False

    def _closing(self, shown: int, *, is_whole: bool) -> bytes:
        """Return what stands behind the items."""
        del shown, is_whole
        return b"]}"


class Page(Listing):
    """A page of a list, which ends early where its items are large."""

    def __init__(
        self,
        items: Iterable[object],
        following: str | None,
        *,
        cursor_at: Callable[[int], str] | None = None,
        limit_bytes: int = PAGE_BYTES,
    ) -> None:
        """Say what it is.

        Args:
            following: Cursor of the next page; None for the last one.
            cursor_at: Gives the cursor of the page that begins behind an item, by its place in
                this one; without it all items are shown.
        """
        super().__init__("items", items)
        self._following = following
        self._cursor_at = cursor_at
        self._limit_bytes = limit_bytes

    def _is_full(self, total_bytes: int) -> bool:
        return self._cursor_at is not None and total_bytes > self._limit_bytes

    def _closing(self, shown: int, *, is_whole: bool) -> bytes:
        following = self._following
        if not is_whole and self._cursor_at is not None:
            following = self._cursor_at(shown - 1)
        return b'],"next":%s}' % encode_json(following)
