"""What is too old to keep goes in small steps; never an envelope of which something waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, func
from sqlmodel import Session, col, select

from hubbub.clock import seq_of_time
from hubbub.config import HubSettings, StoreSettings
from hubbub.ports import Clock
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

__all__ = ["Retention"]

STEP: Final = 500
"""Envelopes one step removes, so that a publish never waits long for it."""


class Retention:
    """Removes what `store.retention` and its rules no longer keep."""

    def __init__(
        self,
        store: StoreSettings,
        hub: HubSettings,
        database: Database,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._store = store
        self._window_us = int(hub.dedupe_window * 1e6)
        self._database = database
        self._journal = journal
        self._clock = clock

    async def sweep(self) -> int:
        """Remove what is too old; returns how many envelopes went."""
        now_us = self._clock.now_us()
        claims = delete(ClaimRow).where(col(ClaimRow.at_us) < now_us - self._window_us)
        await self._journal.execute((claims, []))
        removed = 0
        for rule in self._store.retention_rules:
            age = rule.age if rule.age is not None else self._store.retention
            removed += await self._older(age, rule.subject)
            if rule.count is not None or rule.bytes is not None:
                removed += await self._over(rule.subject, rule.count, rule.bytes)
        return removed + await self._older(self._store.retention, ">")

    async def _older(self, age_s: float, pattern: str) -> int:
        if not age_s:
            return 0
        before_seq = seq_of_time(self._clock.now_us() - int(age_s * 1e6))
        return await self._remove(pattern, col(EnvelopeRow.seq) < before_seq)

    async def _over(self, pattern: str, count: int | None, size: int | None) -> int:
        """Remove the oldest of a subject that are over its count or bytes."""

        def boundary(session: Session) -> int | None:
            rows = session.exec(
                select(EnvelopeRow.seq, EnvelopeRow.subject, func.length(col(EnvelopeRow.data)))
                .order_by(col(EnvelopeRow.seq).desc())
            )  # fmt: skip
            kept = kept_bytes = 0
            for seq, subject, length in rows:
                if not matches(pattern, subject):
                    continue
                kept += 1
                kept_bytes += length
                if (count is not None and kept > count) or (size is not None and kept_bytes > size):
                    found: int = seq
                    return found
            return None

        newest_out = await self._database.read(boundary)
        if newest_out is None:
            return 0
        return await self._remove(pattern, col(EnvelopeRow.seq) <= newest_out)

    async def _remove(self, pattern: str, old: ColumnElement[bool]) -> int:
        removed = 0
        after = -1
        while True:
            step = partial(_finished, pattern=pattern, old=old, after=after)
            seqs, after = await self._database.read(step)
            if seqs:
                await self._delete(seqs)
                removed += len(seqs)
            if after < 0:
                return removed

    async def _delete(self, seqs: Sequence[int]) -> None:
        tasks = select(TaskRow.id).where(col(TaskRow.envelope_seq).in_(seqs))
        traces = select(EnvelopeRow.trace_id).where(col(EnvelopeRow.seq).in_(seqs))
        await self._journal.execute(
            (delete(TaskAttemptRow).where(col(TaskAttemptRow.task_id).in_(tasks)), []),
            (delete(SpanRow).where(col(SpanRow.trace_id).in_(traces)), []),
            (delete(TaskRow).where(col(TaskRow.envelope_seq).in_(seqs)), []),
            (delete(DeliveryRow).where(col(DeliveryRow.envelope_seq).in_(seqs)), []),
            (delete(EnvelopeRow).where(col(EnvelopeRow.seq).in_(seqs)), []),
        )


def _finished(
    session: Session, *, pattern: str, old: ColumnElement[bool], after: int
) -> tuple[list[int], int]:
    """Return a step's worth of old envelopes of which nothing waits, and where to go on."""
    waits = exists().where(
        col(DeliveryRow.envelope_seq) == col(EnvelopeRow.seq),
        col(DeliveryRow.state) != DeliveryState.DONE,
    )
    rows = session.exec(
        select(EnvelopeRow.seq, EnvelopeRow.subject, waits)
        .where(old, col(EnvelopeRow.seq) > after)
        .order_by(col(EnvelopeRow.seq))
        .limit(STEP)
    ).all()
    found = [seq for seq, subject, waiting in rows if not waiting and matches(pattern, subject)]
    return found, rows[-1][0] if len(rows) == STEP else -1
