"""Whether the time is trusted to delete by: after a far jump not until an operator confirms it.

A clock that is a year ahead makes everything old. What deletes for age asks here first, the core's
retention as well as what adapters and plugins clear up. What is remembered over a restart stands
in the table `meta`: when the hub ran last, a hold, and how far ahead numbers were when confirmed.
"""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import insert
from sqlmodel import Session, col, select

from hubbub.clock import time_of_seq
from hubbub.config import StoreSettings
from hubbub.envelope import rfc3339
from hubbub.errors import ConflictError
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock
from hubbub.store.database import Database
from hubbub.store.entries import Statement
from hubbub.store.journal import Journal
from hubbub.store.reads.envelopes import newest_seq
from hubbub.store.tables import MetaRow, table_of

__all__ = ["FAR_JUMP_US", "RetentionHold"]

FAR_JUMP_US: Final = 3_600_000_000
"""A jump of the clock by more than that stops retention; less is the work of a time server."""

TOGETHER_US: Final = 86_400_000_000
"""Jumps within a day count together, so that many short ones are a far one."""

LONGEST_STOP_S: Final = 30 * 86_400.0
"""How long a hub may be off where no age is set, for what adapters keep for a time."""

SEEN: Final = "retention.seen_us"
HELD: Final = "retention.held"
AHEAD: Final = "retention.ahead_us"

DO: Final = (
    "nothing is deleted for its age until an operator says what time it is: look at `date -u`, "
    "then run `hubbub db confirm-clock TIME`"
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class RetentionHold:
    """Watches the clock, and says whether anything may be deleted for its age."""

    def __init__(
        self, *, database: Database, journal: Journal, clock: Clock, metrics: Metrics
    ) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._gauge = metrics.retention_held
        self._reason: str | None = None
        self._kept_reason: str | None = None
        self._trust()

    @property
    def reason(self) -> str | None:
        """Why nothing may be deleted for its age, and what to do; None when it may.

        Whoever deletes reads the clock first and asks then: a jump between the two is seen.
        """
        if self._reason is None:
            self._look()
        return self._reason

    def begin(self, store: StoreSettings) -> None:
        """Compare the time with what the store says of the last run."""
        facts, newest = self._database.read_now(_facts)
        now_us = self._clock.now_us()
        seen_us = int(facts.get(SEEN, 0))
        newest_us = max(time_of_seq(newest), seen_us)
        last_us = seen_us or newest_us
        kept_s = max(_longest_stop_s(store), FAR_JUMP_US / 1e6)
        self._kept_reason = facts.get(HELD)
        if self._kept_reason is not None:
            self._hold(self._kept_reason)
        elif newest_us > max(now_us, int(facts.get(AHEAD, 0))) + FAR_JUMP_US:
            self._hold(
                f"the clock says {rfc3339(now_us)}, and the newest row is of "
                f"{rfc3339(newest_us)}, which lies in the future"
            )
        elif last_us and now_us - last_us > kept_s * 1e6:
            self._hold(
                f"the clock says {rfc3339(now_us)}, and the newest row is of {rfc3339(last_us)}, "
                "older than store.retention"
            )

    async def note(self) -> None:
        """Remember over a restart that the hub runs, or that nothing may be deleted.

        Raises:
            StoreUnavailableError: it is not remembered.
        """
        reason = self.reason
        if reason is None:
            await self._journal.execute(*_put(SEEN, str(self._clock.now_us())))
        elif reason != self._kept_reason:
            await self._journal.execute(*_put(HELD, reason))
            self._kept_reason = reason

    async def confirm(self, time_us: int) -> str | None:
        """Go on deleting by a time that an operator has looked at; returns what had stopped it.

        Raises:
            ConflictError: the hub's clock says another time.
            StoreUnavailableError: it stays as it was.
        """
        held, now_us, wall_us = self.reason, self._clock.now_us(), self._clock.wall_us()
        if abs(wall_us - now_us) > FAR_JUMP_US:
            raise ConflictError(
                f"the machine's clock was set to {rfc3339(wall_us)} while the hub runs, which goes "
                f"on at {rfc3339(now_us)} until it is restarted: restart it, then confirm"
            )
        if abs(time_us - now_us) > FAR_JUMP_US:
            raise ConflictError(
                f"the hub's clock says {rfc3339(now_us)}, over an hour from {rfc3339(time_us)}: "
                "set the machine's clock, restart the hub, then confirm"
            )
        offset_us = wall_us - self._clock.boot_us()
        _, newest = await self._database.read(_facts)
        ahead = _put(AHEAD, str(time_of_seq(newest)))
        await self._journal.execute(*_put(HELD, None), *_put(SEEN, str(now_us)), *ahead)
        self._reason = self._kept_reason = None
        self._gauge.set(0)
        self._trust(offset_us)
        if held is not None:
            log.info("retention.resumed", held=held)
        return held

    def _trust(self, offset_us: int | None = None) -> None:
        """Compare with the clock of now from here on."""
        self._since_us = self._clock.boot_us()
        self._offset_us = self._offset() if offset_us is None else offset_us

    def _offset(self) -> int:
        return self._clock.wall_us() - self._clock.boot_us()

    def _look(self) -> None:
        """Compare the machine's time with the time that has passed."""
        now_us, wall_us = self._clock.now_us(), self._clock.wall_us()
        jump_us = self._offset() - self._offset_us
        if abs(jump_us) > FAR_JUMP_US:
            self._hold(
                f"the machine's clock jumped while the hub ran, from {rfc3339(wall_us - jump_us)} "
                f"to {rfc3339(wall_us)}"
            )
        elif now_us - wall_us > FAR_JUMP_US:  # there and back again, between two looks
            self._hold(
                f"the machine's clock was ahead for a moment: the hub goes on at {rfc3339(now_us)} "
                f"until it is restarted, and it is {rfc3339(wall_us)}"
            )
        elif self._clock.boot_us() - self._since_us > TOGETHER_US:
            self._trust()

    def _hold(self, reason: str) -> None:
        self._reason = reason if reason.endswith(DO) else f"{reason}; {DO}"
        self._gauge.set(1)
        log.error("retention.held", reason=self._reason)


def _longest_stop_s(store: StoreSettings) -> float:
    """Return for how long a hub may be off: as long as messages are kept."""
    ages = [rule.age for rule in store.retention_rules if rule.age]
    return store.retention or max(ages, default=0.0) or LONGEST_STOP_S


def _facts(session: Session) -> tuple[dict[str, str], int]:
    """Return what is remembered, and the highest number that was given."""
    names = (SEEN, HELD, AHEAD)
    rows = session.exec(select(MetaRow).where(col(MetaRow.name).in_(names))).all()
    return {row.name: row.value for row in rows}, newest_seq(session)


def _put(name: str, value: str | None) -> list[Statement]:
    """Return the statements that remember something in the place of what was, or None of it."""
    meta = table_of(MetaRow)
    gone: Statement = (meta.delete().where(meta.c.name == name), [])
    return [gone] if value is None else [gone, (insert(meta), [{"name": name, "value": value}])]
