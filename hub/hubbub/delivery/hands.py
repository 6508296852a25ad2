"""Hands: the payloads of what endpoints and workers were given and have not done with."""

from __future__ import annotations

from typing import Final

from hubbub.memory import MemoryAccount, MemoryBudget
from hubbub.values import Delivery

__all__ = ["IN_FLIGHT_BYTES", "Hands"]

IN_FLIGHT_BYTES: Final = 64 * 1024 * 1024
"""Payload that one endpoint is given at once, beside one; what is more waits for a slot."""


class Hands:
    """What is in flight, by delivery: counted from the hand-over to the end, or to a retry."""

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory
        self._pulled = self.account()
        self._held: dict[int, tuple[MemoryAccount, bytes]] = {}

    def account(self) -> MemoryAccount:
        """Open an account for one endpoint."""
        return self._memory.account("in_flight", limit_bytes=IN_FLIGHT_BYTES)

    def take(self, delivery: Delivery, account: MemoryAccount | None) -> None:
        """Note that a delivery was given to an endpoint.

        Args:
            account: The endpoint's own; None for what is pulled, or whose endpoint is gone.
        """
        self.leave(delivery)
        account = account or self._pulled
        payload = delivery.envelope.data
        account.add(payload)
        self._held[delivery.id] = (account, payload)

    def leave(self, delivery: Delivery) -> None:
        """Note that it is in nobody's hand, if it was."""
        held = self._held.pop(delivery.id, None)
        if held is not None:
            account, payload = held
            account.release(payload)
