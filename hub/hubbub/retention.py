"""What is too old to keep goes in small steps; never an envelope of which something waits.

Each envelope is under one policy: the first of `store.retention_rules` that covers its subject,
else `store.retention` and its bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import delete, exists, func
from sqlmodel import Session, col, select

from hubbub.clock import seq_of_time
from hubbub.config import StoreSettings
from hubbub.ports import Clock
from hubbub.retention_hold import RetentionHold
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.store.tables import (
    ClaimRow,
    DeliveryRow,
    EnvelopeRow,
    SpanRow,
    TaskAttemptRow,
    TaskRow,
)
from hubbub.subjects import matches
from hubbub.values import DeliveryState

__all__ = ["Policy", "Retention", "policies_of"]

MAX_SEQ: Final = 2**63 - 1
STEP: Final = 500
"""Envelopes one step looks at, so that a publish never waits long for it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of the subjects a pattern covers; None or 0 is no limit."""

    subject: str
    age_s: float
    count: int | None = None
    bytes: int | None = None


def policies_of(store: StoreSettings) -> tuple[Policy, ...]:
    """Return the policies, the first that covers a subject being its own; the last covers all."""
    rules = (
        Policy(
            rule.subject,
            store.retention if rule.age is None else rule.age,
            rule.count,
            rule.bytes,
        )
        for rule in store.retention_rules
    )
    rest = Policy(
        ">",
        store.retention,
        store.retention_max_envelopes or None,
        store.retention_max_bytes or None,
    )
    return (*rules, rest)


class Retention:
    """Removes what the policies no longer keep."""

    def __init__(
        self,
        store: StoreSettings,
        *,
        dedupe_window_s: float,
        database: Database,
        journal: Journal,
        clock: Clock,
        hold: RetentionHold,
    ) -> None:
        self._policies = policies_of(store)
        self._window_us = int(dedupe_window_s * 1e6)
        self._database = database
        self._journal = journal
        self._clock = clock
        self._hold = hold

    def change(self, store: StoreSettings, *, dedupe_window_s: float) -> None:
        """Keep by other policies from the next sweep on."""
        self._policies = policies_of(store)
        self._window_us = int(dedupe_window_s * 1e6)

    async def sweep(self) -> int:
        """Remove what is too old or too much; returns how many envelopes went.

        While the time is not to be trusted nothing is too old; bounds in number hold.
        """
        now_us = self._clock.now_us()
        await self._hold.note()
        removed = await self._remove_old(now_us) if self._hold.reason is None else 0
        if any(policy.count or policy.bytes for policy in self._policies):
            bounds = await self._database.read(self._bounds, patient=True)
            removed += await self._remove(max(bounds), bounds)
        return removed

    async def _remove_old(self, now_us: int) -> int:
        cutoffs = [
            seq_of_time(now_us - int(policy.age_s * 1e6)) if policy.age_s else 0
            for policy in self._policies
        ]
        claims = delete(ClaimRow).where(col(ClaimRow.at_us) < now_us - self._window_us)
        orphans = delete(TaskRow).where(
            col(TaskRow.seq) < cutoffs[-1], col(TaskRow.envelope_seq).is_(None)
        )
        await self._journal.execute((claims, []), (orphans, []), patient=True)
        return await self._remove(max(cutoffs), cutoffs)

    async def prune(self, before_us: int, *, dry_run: bool) -> int:
        """Remove all envelopes before a time of which nothing waits, whatever the policies keep.

        Returns:
            How many there were.
        """
        below = min(seq_of_time(before_us), MAX_SEQ)
        cutoffs = [below] * len(self._policies)
        return await self._remove(below, cutoffs, dry_run=dry_run)

    async def _remove(self, below: int, cutoffs: Sequence[int], *, dry_run: bool = False) -> int:
        """Remove finished envelopes that are below the cutoff of their own policy."""
        removed, after = 0, -1
        while True:
            step = partial(self._step, below=below, cutoffs=cutoffs, after=after)
            seqs, last = await self._database.read(step, patient=True)
            if seqs:
                if not dry_run:
                    await self._delete(seqs)
                removed += len(seqs)
            if last is None:
                return removed
            after = last

    def _step(
        self, session: Session, *, below: int, cutoffs: Sequence[int], after: int
    ) -> tuple[list[int], int | None]:
        """Return a step's worth of envelopes to remove, and where to go on."""
        waits = exists().where(
            col(DeliveryRow.envelope_seq) == col(EnvelopeRow.seq),
            col(DeliveryRow.state) != DeliveryState.DONE,
        )
        rows = session.exec(
            select(EnvelopeRow.seq, EnvelopeRow.subject, waits)
            .where(EnvelopeRow.seq < below, EnvelopeRow.seq > after)
            .order_by(col(EnvelopeRow.seq))
            .limit(STEP)
        ).all()
        found = [
            seq
            for seq, subject, waiting in rows
            if not waiting and seq < cutoffs[self._policy_of(subject)]
        ]
        return found, rows[-1][0] if len(rows) == STEP else None

    def _bounds(self, session: Session) -> list[int]:
        """Return, for each policy with a count or bytes, the sequence below which is too much."""
        kept = [0] * len(self._policies)
        kept_bytes = [0] * len(self._policies)
        bounds = [0] * len(self._policies)
        size_of = func.length(col(EnvelopeRow.data))
        newest_first = select(EnvelopeRow.seq, EnvelopeRow.subject, size_of)
        for seq, subject, size in session.exec(newest_first.order_by(col(EnvelopeRow.seq).desc())):
            place = self._policy_of(subject)
            policy = self._policies[place]
            kept[place] += 1
            kept_bytes[place] += size
            over = (policy.count and kept[place] > policy.count) or (
                policy.bytes and kept_bytes[place] > policy.bytes
            )
            if over and not bounds[place]:
                bounds[place] = seq + 1
        return bounds

    def _policy_of(self, subject: str) -> int:
        return next(
            place for place, policy in enumerate(self._policies) if matches(policy.subject, subject)
        )

    async def _delete(self, seqs: Sequence[int]) -> None:
        # A task has the number of its request, so that none of this scans.
        tasks = select(TaskRow.id).where(col(TaskRow.seq).in_(seqs))
        traces = select(EnvelopeRow.trace_id).where(col(EnvelopeRow.seq).in_(seqs))
        await self._journal.execute(
            (delete(TaskAttemptRow).where(col(TaskAttemptRow.task_id).in_(tasks)), []),
            (delete(SpanRow).where(col(SpanRow.trace_id).in_(traces)), []),
            (delete(TaskRow).where(col(TaskRow.seq).in_(seqs)), []),
            (delete(DeliveryRow).where(col(DeliveryRow.envelope_seq).in_(seqs)), []),
            (delete(EnvelopeRow).where(col(EnvelopeRow.seq).in_(seqs)), []),
            patient=True,
        )
