"""What the journal is asked to write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable

from hubbub.ports import Change, Kept, Record
from hubbub.store.rows import STATE, Changed
from hubbub.values import Delivery, DeliveryState

__all__ = ["Entry", "Statement", "done_in", "unseen_in"]

Statement = tuple[Executable, list[dict[str, Any]]]


class Entry(msgspec.Struct, eq=False):
    """One thing to write, whole or not at all.

    Attributes:
        snapshots: `changed_values` of each change, as they were when it was queued.
        future: Somebody waits.
        then: Called with what became of a change.
        kept: Called with what became of a record; with None when it was not kept.
        told: Nobody waits any more: it was refused while it was under way. It is not begun again.
        written: It is in the database; whether that is where it should be is not known yet.
        done: All is answered.
        patient: It may take longer than `store.timeout`.
        payloads: What it keeps in memory, and is counted.
        number: Its place in order of arrival.
    """

    record: Record | None = None
    changes: Sequence[Change] = ()
    snapshots: Sequence[Changed] = ()
    statements: Sequence[Statement] = ()
    future: asyncio.Future[Any] | None = None
    then: Callable[[bool], None] | None = None
    kept: Callable[[Kept | None], None] | None = None
    size: int = 0
    answer: Kept | list[bool] | None = None
    told: bool = False
    written: bool = False
    done: bool = False
    patient: bool = False
    payloads: list[bytes] = msgspec.field(default_factory=list[bytes])
    number: int = 0

    @property
    def empty(self) -> bool:
        """Nothing to write: it only waits for its turn."""
        return self.record is None and not self.changes and not self.statements

    @property
    def fresh(self) -> bool:
        """It only adds rows: no change that waits is about them."""
        record = self.record
        return record is not None and not record.reruns and not self.changes and not self.statements

    @property
    def plain(self) -> bool:
        """The outcome of a plain delivery, from which nothing follows; nobody waits for it."""
        if self.future is not None or len(self.changes) != 1:
            return False
        change = self.changes[0]
        return (
            change.task is None
            and change.follows is None
            and self.snapshots[0][STATE] is DeliveryState.DONE
        )


def done_in(entries: Iterable[Entry]) -> list[int]:
    """Return the deliveries that ended; a retry is still in memory, and not to be read again."""
    return [
        snapshot[-1]
        for entry in entries
        for snapshot in entry.snapshots
        if snapshot[STATE] is DeliveryState.DONE
    ]


def unseen_in(entries: Iterable[Entry]) -> list[Delivery]:
    """Return new deliveries of entries that were refused and written, of which nobody knows."""
    unseen: list[Delivery] = []
    for entry in entries:
        if not entry.told or entry.kept is not None:
            continue
        follows = [change.follows for change in entry.changes]
        for record in (entry.record, *follows):
            if record is not None:
                unseen += record.deliveries
    return unseen
