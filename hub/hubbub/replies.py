"""What answers what: where an envelope came from, so that an answer finds its way back."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hubbub.envelope import Envelope
from hubbub.memory import MemoryBudget, Shed

__all__ = ["ORIGINS", "Origin", "Origins", "Waiters"]

ORIGINS: Final = 16_384
"""Envelopes whose origin is kept in memory; older durable ones are found in the store."""


ORIGINS_BYTES: Final = 16 * 1024 * 1024
"""Payload of those that are larger than `SMALL_BYTES`; of more, the oldest are forgotten."""

SMALL_BYTES: Final = 1024
"""Payload that counts by number only."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where answers to an envelope go, and what they inherit."""

    address: str
    traceparent: str
    hops: int
    key: str | None

    @classmethod
    def of(cls, envelope: Envelope) -> Origin:
        """Return the origin of an envelope: its `replyto`, else its source."""
        return cls(
            envelope.reply_to or envelope.source, envelope.traceparent, envelope.hops, envelope.key
        )


class Origins:
    """The ring of recent origins, by envelope id.

    Their data is kept: whether somebody was given an envelope may be for its data to say.
    """

    def __init__(self, size: int = ORIGINS, memory: MemoryBudget | None = None) -> None:
        self._size = size
        self._ring: OrderedDict[str, Envelope] = OrderedDict()
        self._large: OrderedDict[str, bytes] = OrderedDict()
        self._account: Final = (memory or MemoryBudget()).account(
            "origins", limit_bytes=ORIGINS_BYTES, shed=self._forget_large, order=Shed.REMEMBERED
        )

    def remember(self, envelope: Envelope) -> None:
        """Note an envelope that somebody may answer; of two of one id the first."""
        ring = self._ring
        if len(envelope.data) > SMALL_BYTES and envelope.id not in ring:
            self._remember_large(envelope)
        ring.setdefault(envelope.id, envelope)
        if len(ring) > self._size:
            gone, _ = ring.popitem(last=False)
            if gone in self._large:
                self._account.release(self._large.pop(gone))

    def find(self, envelope_id: str) -> Envelope | None:
        """Return a recent envelope."""
        return self._ring.get(envelope_id)

    def _remember_large(self, envelope: Envelope) -> None:
        while not self._account.room_for(len(envelope.data)):
            self._forget_oldest()
        self._large[envelope.id] = envelope.data
        self._account.add(envelope.data)

    def _forget_oldest(self) -> None:
        gone, payload = self._large.popitem(last=False)
        del self._ring[gone]
        self._account.release(payload)

    def _forget_large(self) -> None:
        while self._large:
            self._forget_oldest()


class Waiters:
    """Requests whose answer somebody waits for, by the id of the request."""

    def __init__(self, remembered: int = ORIGINS) -> None:
        self._remembered = remembered
        self._waiting: dict[str, asyncio.Future[Envelope]] = {}
        self._asked: dict[str, Envelope] = {}
        self._over: OrderedDict[str, None] = OrderedDict()

    def open(self, envelope_id: str) -> asyncio.Future[Envelope]:
        """Begin to wait; returns the future of the answer."""
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._waiting[envelope_id] = future
        return future

    def note(self, asked: Envelope) -> None:
        """Keep the request as it is published; only from here on it may be answered."""
        self._asked[asked.id] = asked

    def asked(self, envelope_id: str) -> Envelope | None:
        """Return a request whose answer somebody waits for."""
        return self._asked.get(envelope_id)

    def close(self, envelope_id: str) -> None:
        """Wait no longer; an answer that comes now is late."""
        del self._waiting[envelope_id]
        self._asked.pop(envelope_id, None)
        self._over[envelope_id] = None
        if len(self._over) > self._remembered:
            self._over.popitem(last=False)

    def waits_for(self, envelope: Envelope) -> bool:
        """Tell whether somebody waits for this answer."""
        return envelope.in_reply_to in self._asked

    def is_over(self, envelope_id: str) -> bool:
        """Tell whether an answer to this request is late."""
        return envelope_id in self._over

    def answer(self, envelope: Envelope) -> bool:
        """Give an answer to whoever waits; False when it is not the first one."""
        future = self._waiting.get(envelope.in_reply_to or "")
        if future is None or future.done() or not self.waits_for(envelope):
            return False
        future.set_result(envelope)
        return True
