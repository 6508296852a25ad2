"""Rules of delivery that need nothing but values: deadlines, backoff, who is next in a pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hubbub.delivery.links import EndpointLink
from hubbub.values import Delivery, Endpoint, Overflow

__all__ = [
    "NODE_LOST",
    "WITHDRAWN",
    "DeliveryPolicy",
    "deadline_of",
    "ended_as",
    "expiry_reason",
    "has_another",
    "is_plain",
    "load_of",
]

NODE_LOST: Final = "node_lost"
"""Reason of an attempt whose endpoint went away with it."""

WITHDRAWN: Final = "withdrawn"
"""Reason of an attempt that was given and did not begin: its endpoint has not seen it."""

_ENDS: Final = frozenset(
    {"timeout", NODE_LOST, "drained", "rejected", "cancelled", "credential_ended"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryPolicy:
    """How hard to try when nobody says otherwise. Times in seconds."""

    mailbox_limit: int = 100_000
    overflow: Overflow = "refuse"
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    task_backoff_s: float = 2.0
    timeout_s: float = 30.0
    slot_grace_s: float = 60.0

    def timeout_us(self, endpoint: Endpoint) -> int:
        """Return how long an attempt may take where only the endpoint may say."""
        return int((endpoint.timeout_s or self.timeout_s) * 1e6)

    def backoff_us(self, attempts: int, chance: float, *, leased: bool = False) -> int:
        """Return how long to wait before the next attempt: doubling, with jitter, bounded.

        Args:
            attempts: How many there were.
            chance: From 0 to 1; spreads what failed together.
            leased: A task: begins at `task_backoff_s`, spread by a fifth to both sides.
        """
        doublings = 2 ** min(attempts - 1, 30)
        if leased:
            wait_s = self.task_backoff_s * doublings * (0.8 + chance * 0.4)
            return int(min(self.backoff_max_s, wait_s) * 1e6)
        return int(min(self.backoff_max_s, self.backoff_s * doublings) * (0.5 + chance / 2) * 1e6)


def deadline_of(delivery: Delivery, *, now_us: int) -> int | None:
    """Return until when it may wait: the envelope's expiry, or its wait in the queue from now."""
    expires_us = delivery.envelope.expires_us
    if not delivery.wait_us:
        return expires_us
    waited_us = now_us + delivery.wait_us
    return waited_us if expires_us is None else min(expires_us, waited_us)


def expiry_reason(delivery: Delivery) -> str:
    """Return why a deadline ended a delivery."""
    expires_us = delivery.envelope.expires_us
    if expires_us is not None and delivery.deadline_us == expires_us:
        return "expires"
    return "no_eligible_node" if delivery.leased else "hold"


def has_another(delivery: Delivery, address: str) -> bool:
    """Tell whether an endpoint has, or had, the same envelope by another delivery."""
    return bool(delivery.siblings) and any(
        other is not delivery and address in (other.endpoint, other.mailbox)
        for other in delivery.siblings
    )


def is_plain(delivery: Delivery) -> bool:
    """Tell whether it is no task."""
    return not delivery.leased


def ended_as(reason: str | None) -> tuple[str, str | None]:
    """Return how an attempt ended, one of few words, and its error where that says more."""
    if reason in _ENDS:
        return reason, None
    return "failed", reason


def load_of(link: EndpointLink) -> tuple[bool, int, int]:
    """Return how busy an endpoint is, then how long: a pool gives to the lowest.

    One that has failed is tried only when all others are busy.
    """
    wary = link.guard is not None and link.guard.wary
    return (wary, link.busy, link.idle_since_us)
