"""Small steps at regular times: what is due, what is overdue, what is too old to keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from sqlmodel import Session

from hubbub.delivery import DeliveryRoom
from hubbub.errors import HubError
from hubbub.ports import Clock, Timer
from hubbub.store.database import Database
from hubbub.store.reads import deliveries as reads
from hubbub.values import Delivery

__all__ = ["Sweeper"]

STEP_US: Final = 500_000
"""Between looks at what is due or overdue in the store."""

RARE_US: Final = 60_000_000
"""Between looks at what is too old."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Sweeper:
    """Looks after what only the store knows."""

    def __init__(
        self,
        *,
        room: DeliveryRoom,
        database: Database,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        rarely: Callable[[], Awaitable[None]],
    ) -> None:
        self._room = room
        self._database = database
        self._clock = clock
        self._spawn = spawn
        self._rarely = rarely
        self._looked_us = 0
        self._rare_us = 0
        self._timer: Timer | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin."""
        self._rare_us = self._clock.now_us()
        self._again()

    def stop(self) -> None:
        """End."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        if not self._stopped:
            due_us = self._clock.now_us() + STEP_US
            self._timer = self._clock.call_at(due_us, self._begin_step)

    def _begin_step(self) -> None:
        self._spawn(self._step())

    async def _step(self) -> None:
        try:
            await self.look()
            now_us = self._clock.now_us()
            if now_us - self._rare_us >= RARE_US:
                self._rare_us = now_us
                await self._rarely()
        except HubError as error:
            log.warning("sweeper.failed", error=str(error), code=error.code)
        finally:
            self._again()

    async def look(self) -> None:
        """Wake mailboxes in which something is due, and end what is overdue."""
        now_us = self._clock.now_us()
        after_us = self._looked_us

        def find(session: Session) -> tuple[list[str], list[Delivery]]:
            due = reads.due_mailboxes(session, after_us=after_us, now_us=now_us)
            return due, reads.overdue(session, now_us=now_us)

        with self._room.boxes.reading() as here:
            due, overdue = await self._database.read(find)
            self._looked_us = now_us  # a read that failed is made up for by the next
            overdue = [here.get(one.id, one) for one in overdue]
        for name in due:
            box = self._room.boxes.get(name)
            box.stir()
            self._room.pump(box)
        for delivery in overdue:
            # One that does not wait in memory is in somebody's hand, or its end is not written yet.
            self._room.endings.expire(delivery)
