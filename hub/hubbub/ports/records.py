"""What is kept whole or not at all, and how it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from hubbub.envelope import Envelope
from hubbub.values import Attempt, Delivery, Receipt, Task

if TYPE_CHECKING:
    from sqlalchemy import Table


__all__ = ["Change", "Claim", "ClaimKind", "Planned", "Record", "Row", "RowsOf", "Stored"]

Row = tuple["Table", tuple[object, ...]]
"""A row of an adapter's own table: all columns in order, but without an automatic key."""

RowsOf = Callable[[Sequence[Delivery]], Iterable[Row]]
"""Rows of an adapter's own for what was planned."""


ClaimKind = Literal["id", "key"]


class Claim(msgspec.Struct, frozen=True):
    """A caller's own id or idempotency key: the same one twice is the same act.

    Attributes:
        kind: `id` or `key`; a claim on the same name with another body is an error of that kind.
        body_hash: What was said, so that another body is noticed.
        answer: Receipt to give again, as JSON.
    """

    principal: str
    kind: ClaimKind
    name: str
    body_hash: bytes
    answer: bytes
    at_us: int


class Stored(msgspec.Struct, frozen=True):
    """An envelope with its place in the journal, and what came of it at publish."""

    envelope: Envelope
    seq: int
    reason: str | None = None
    """Why it is `unrouted`; None when it was routed."""


class Record(msgspec.Struct):
    """What must be kept whole or not at all.

    Attributes:
        tasks: New tasks; one that exists already refuses the whole record.
        reruns: Finished tasks that run again; kept only while their run is the one before.
        attempts: Of new tasks that are given to somebody in the same commit.
        rows: Rows of adapters' own tables.
    """

    envelopes: list[Stored] = msgspec.field(default_factory=list[Stored])
    deliveries: list[Delivery] = msgspec.field(default_factory=list[Delivery])
    tasks: list[Task] = msgspec.field(default_factory=list[Task])
    reruns: list[Task] = msgspec.field(default_factory=list[Task])
    attempts: list[Attempt] = msgspec.field(default_factory=list[Attempt])
    rows: list[Any] = msgspec.field(default_factory=list[Any])
    claims: tuple[Claim, ...] = ()

    def merge(self, other: Record) -> None:
        """Take in what another record holds, to be kept in the same commit."""
        self.envelopes += other.envelopes
        self.deliveries += other.deliveries
        self.tasks += other.tasks
        self.reruns += other.reruns
        self.attempts += other.attempts
        self.rows += other.rows
        self.claims += other.claims


class Change(msgspec.Struct):
    """A new state of one delivery, counted only while it is not done.

    Attributes:
        delivery: As it shall be; copied when the change is handed over.
        attempt_is: Counts only while this is its attempt (a lease that is still mine).
        task: Its task as it shall be.
        attempt: Hand-over to add to the task's history.
        ended: How the attempt that was under way ended, for the task's history.
        error: Why, in the words of whoever said so.
        follows: Kept in the same commit, if the change counted.
        otherwise: Kept in the same commit, if it did not.
    """

    delivery: Delivery
    attempt_is: int | None = None
    task: Task | None = None
    attempt: Attempt | None = None
    ended: str | None = None
    error: str | None = None
    follows: Record | None = None
    otherwise: Record | None = None


class Planned(msgspec.Struct):
    """What the router made of one envelope.

    Attributes:
        record: To be kept before anybody is told.
        deliveries: To be put into mailboxes after that, volatile ones included.
        receipt: What the publisher gets.
        results: Results of tasks in the same record; observers see them after the commit.
    """

    record: Record
    deliveries: list[Delivery]
    receipt: Receipt
    results: tuple[Envelope, ...] = ()
