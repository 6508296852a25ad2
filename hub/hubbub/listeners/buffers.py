"""Bytes under way: what one listener keeps of frames and bodies that are not whole yet.

Each of them is within a limit of its own. All of one listener together are within
`limits.buffered`, and count for `hub.memory`: over either the largest is given up, so that many
who send slowly cannot hold what the others need. A lone one is within its own limit only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hubbub.memory import MemoryAccount, MemoryBudget, Shed

__all__ = ["BUFFERS", "COUNTED_BYTES", "Buffer", "Buffers"]

BUFFERS: Final = "hubbub.buffers"
"""Where the `state` of an ASGI scope has the `Buffers` of the listener that it came by."""

COUNTED_BYTES: Final = 16_384
"""What is smaller is not counted: most frames come whole, and cost nothing then."""


class Buffer:
    """What one connection or request has under way.

    Attributes:
        size_bytes: How much is counted of it.
        given_up: Whether it had to give way; what comes now is not to be kept.
    """

    __slots__ = ("_give_up", "_owner", "given_up", "size_bytes")

    def __init__(self, owner: Buffers, give_up: Callable[[], None]) -> None:
        self.size_bytes = 0
        self.given_up = False
        self._owner = owner
        self._give_up = give_up

    def resize(self, size_bytes: int) -> None:
        """Say how much is under way; 0 once it is handed on. It may be given up meanwhile."""
        size = size_bytes if size_bytes >= COUNTED_BYTES else 0
        change = size - self.size_bytes
        if change and not self.given_up:
            self.size_bytes = size
            self._owner.note(self, change)

    def give_up(self) -> None:
        """End it: nothing of it is kept, and who sent it is told."""
        self.resize(0)
        self.given_up = True
        self._give_up()


class Buffers:
    """What all connections of one listener have under way.

    Attributes:
        held_bytes: All of it.
    """

    def __init__(
        self,
        limit_bytes: Callable[[], int],
        *,
        refuse: Callable[[], None],
        grew: Callable[[int], None],
    ) -> None:
        """Begin with nothing.

        Args:
            limit_bytes: Returns `limits.buffered`.
            refuse: Counts one that was given up.
            grew: Told by how much there is more, or less.
        """
        self.held_bytes = 0
        self._limit_bytes = limit_bytes
        self._refuse = refuse
        self._grew = grew
        self._held: dict[Buffer, None] = {}
        self._account: MemoryAccount | None = None

    def count_in(self, memory: MemoryBudget) -> None:
        """Count for the budget of a hub, too; to be said before anything is under way."""
        self._account = memory.account(
            "buffered", limit_bytes=self._limit_bytes(), shed=self.shed, order=Shed.VOLATILE
        )

    def open(self, give_up: Callable[[], None]) -> Buffer:
        """Return a buffer for one that begins.

        Args:
            give_up: Called when it has to give way: keep nothing, tell the sender, do not wait.
        """
        return Buffer(self, give_up)

    def note(self, buffer: Buffer, change: int) -> None:
        """Count what a buffer has more, or less; over the limit the largest is given up."""
        if buffer.size_bytes:
            self._held[buffer] = None
        else:
            self._held.pop(buffer, None)
        self.held_bytes += change
        self._grew(change)
        if self._account is not None:
            if change > 0:
                self._account.add_bytes(change)
            else:
                self._account.release_bytes(-change)
        if change > 0:
            while self.held_bytes > self._limit_bytes() and len(self._held) > 1:
                self.shed()

    def shed(self) -> None:
        """Give the largest up."""
        largest = max(self._held, key=lambda each: each.size_bytes, default=None)
        if largest is not None:
            self._refuse()
            largest.give_up()
