"""What waits to be written, in order of arrival; plain outcomes stand aside for a moment.

Nobody waits for the outcome of a plain delivery, and no new row is about it. So a batch of nothing
but new rows leaves outcomes alone: of many commits one has all of their changes, in two statements,
and the others are shorter for who waits for them. Whatever may be about the same rows is written
in order of arrival.
"""

from __future__ import annotations

from collections import deque
from heapq import merge
from itertools import count
from typing import Final

from hubbub.store.entries import Entry

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_ENTRIES", "Queue"]

MAX_BATCH_ENTRIES: Final = 512
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024


class Queue:
    """Filled on the event loop, emptied on the journal's thread."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._aside: deque[Entry] = deque()
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries) + len(self._aside)

    @property
    def waiting(self) -> int:
        """Entries that do not stand aside."""
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Let an entry wait for the next batch; aside, if it is a plain outcome."""
        entry.number = next(self._numbers)
        (self._aside if entry.plain else self._entries).append(entry)

    def put_back(self, entries: list[Entry]) -> None:
        """Let entries wait that were gathered, before all others."""
        self._entries.extendleft(reversed(entries))

    def take_all(self) -> list[Entry]:
        """Take out all that do not stand aside."""
        return [self._entries.popleft() for _ in range(len(self._entries))]

    def all_waiting(self) -> list[Entry]:
        """Return all that do not stand aside, and let them wait on."""
        return list(self._entries)

    def gather(self, *, due: bool) -> list[Entry]:
        """Take out the next batch.

        Args:
            due: Outcomes have stood aside for long enough.
        """
        entries: list[Entry] = []
        size = 0
        waiting = self._entries
        while waiting and len(entries) < MAX_BATCH_ENTRIES and size < MAX_BATCH_BYTES:
            entry = waiting.popleft()
            size += entry.size
            entries.append(entry)
        if self._aside and (due or not all(entry.fresh for entry in entries)):
            last = entries[-1].number if entries and waiting else None
            return list(merge(entries, self._outcomes(last), key=_number))
        return entries

    def _outcomes(self, last: int | None) -> list[Entry]:
        """Take out those that stand aside; of a full batch, those before the last of it."""
        aside = self._aside
        taken: list[Entry] = []
        while aside and (last is None or aside[0].number < last):
            taken.append(aside.popleft())
        return taken


def _number(entry: Entry) -> int:
    return entry.number
