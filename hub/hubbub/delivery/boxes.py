"""All mailboxes: made when first needed, refilled from the store, forgotten when idle."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from hubbub.delivery.mailbox import MAX_BUSY_LANES, WINDOW, Mailbox
from hubbub.directory import Directory
from hubbub.errors import StoreUnavailableError
from hubbub.ports import Clock, Engine
from hubbub.values import Delivery, Overflow

__all__ = ["Boxes"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Boxes:
    """The mailboxes of one hub, by name."""

    def __init__(
        self,
        *,
        engine: Engine,
        clock: Clock,
        directory: Directory,
        limit: int,
        overflow: Overflow,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        made: Callable[[Mailbox], None],
        filled: Callable[[Mailbox], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._directory = directory
        self._limit = limit
        self._overflow: Overflow = overflow
        self._spawn = spawn
        self._made = made
        self._filled = filled
        self._boxes: dict[str, Mailbox] = {}

    def __iter__(self) -> Iterator[Mailbox]:
        return iter(list(self._boxes.values()))

    def get(self, name: str) -> Mailbox:
        """Return a mailbox, made when it is new."""
        box = self._boxes.get(name)
        if box is None:
            known = self._directory.get(name)
            endpoint = known.endpoint if known else None
            limit = endpoint.mailbox_limit if endpoint is not None else None
            overflow = endpoint.overflow if endpoint is not None else None
            box = self._boxes[name] = Mailbox(
                name, limit=limit or self._limit, overflow=overflow or self._overflow
            )
            self._made(box)
        return box

    def find(self, name: str) -> Mailbox | None:
        """Return a mailbox if it is there."""
        return self._boxes.get(name)

    def admit(self, delivery: Delivery) -> Mailbox:
        """Put a delivery whose space was reserved into its mailbox."""
        box = self.get(delivery.mailbox)
        here, moved = box.admit(delivery, now_us=self._clock.now_us())
        if delivery.durable and here:
            self._engine.hold(delivery)
        if moved is not None:
            self._engine.let_go(moved)
        return box

    def refill(self, box: Mailbox) -> None:
        """Read more of a mailbox from the store, if memory runs low."""
        if box.wants_refill:
            box.refilling = True
            self._spawn(self._refill(box))

    async def read_more(self, box: Mailbox) -> bool:
        """Read more of a mailbox and wait for it; False when there is nothing to read."""
        if not box.wants_refill:
            return False
        box.refilling = True
        await self._refill(box)
        return True

    def forget_idle(self, *, needed: Callable[[str], bool]) -> None:
        """Forget mailboxes in which nothing is and which nobody needs."""
        for name, box in list(self._boxes.items()):
            if box.idle and not box.refilling and not needed(name):
                del self._boxes[name]

    async def _refill(self, box: Mailbox) -> None:
        busy = box.line.busy_lanes()
        limit = WINDOW - len(box.line)
        now_us = self._clock.now_us()
        try:
            if len(busy) > MAX_BUSY_LANES or limit <= 0:
                box.dry = True
                return
            found = await self._engine.take(box.name, limit=limit, now_us=now_us, skip_keys=busy)
            box.refilled(found, now_us=now_us, all_due=len(found) < limit)
        except StoreUnavailableError as error:
            log.warning("mailbox.refill_failed", mailbox=box.name, error=str(error))
            box.dry = True
        finally:
            box.refilling = False
        self._filled(box)
