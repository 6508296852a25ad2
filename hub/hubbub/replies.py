"""What answers what: where an envelope came from, so that an answer finds its way back."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hubbub.envelope import Envelope

__all__ = ["ORIGINS", "Origin", "Origins"]

ORIGINS: Final = 16_384
"""Envelopes whose origin is kept in memory; older durable ones are found in the store."""


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
    """The ring of recent origins, by envelope id."""

    def __init__(self, size: int = ORIGINS) -> None:
        self._size = size
        self._ring: OrderedDict[str, Envelope] = OrderedDict()

    def remember(self, envelope: Envelope) -> None:
        """Note an envelope that somebody may answer."""
        ring = self._ring
        ring[envelope.id] = envelope
        if len(ring) > self._size:
            ring.popitem(last=False)

    def find(self, envelope_id: str) -> Origin | None:
        """Return the origin of a recent envelope."""
        envelope = self._ring.get(envelope_id)
        return None if envelope is None else Origin.of(envelope)
