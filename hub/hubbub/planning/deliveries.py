"""One delivery: how hard to try, by what the asker, the route, the endpoint and the core say."""

from __future__ import annotations

from dataclasses import dataclass

from hubbub.clock import Ids
from hubbub.envelope import MAX_HOPS
from hubbub.lanes import rank_of
from hubbub.planning.plan import Offer, ended
from hubbub.routing import CompiledRoute
from hubbub.values import Delivery, Endpoint, Outcome

__all__ = ["Deliveries", "TryHard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TryHard:
    """Attempts and times when neither asker, nor route, nor adapter says. Seconds."""

    attempts: int = 5
    timeout_s: float = 30.0
    queue_ttl_s: float = 3600.0


class Deliveries:
    """Makes them.

    Attributes:
        defaults: What the core says.
    """

    def __init__(self, ids: Ids, defaults: TryHard) -> None:
        self._ids = ids
        self.defaults = defaults

    def is_durable(self, offer: Offer, route: CompiledRoute) -> bool:
        """Tell whether what a route sends is stored: by the route, else publisher, else source."""
        for said in (route.route.durable, offer.envelope.durable):
            if said is not None:
                return said
        return offer.durable

    def make(
        self,
        offer: Offer,
        mailbox: str,
        route: CompiledRoute,
        endpoint: Endpoint | None,
        defaults: TryHard | None = None,
    ) -> Delivery:
        """Return a delivery for one mailbox; how hard to try: route, else adapter, else core."""
        rule, envelope = route.route, offer.envelope
        lane, now_us = route.key_of(envelope), offer.now_us
        defaults = defaults or self.defaults
        attempts = rule.attempts or (endpoint and endpoint.attempts) or defaults.attempts
        if endpoint is not None and endpoint.max_attempts is not None:
            attempts = min(attempts, endpoint.max_attempts)
        timeout_s = rule.timeout_s or (endpoint and endpoint.timeout_s) or defaults.timeout_s
        delivery = Delivery(
            id=self._ids.seq(now_us),
            envelope=envelope,
            seq=offer.seq,
            mailbox=mailbox,
            route=rule.name,
            durable=self.is_durable(offer, route),
            rank=rank_of(
                created_us=now_us,
                not_before_us=0,
                priority=envelope.priority,
                keyed=lane is not None,
            ),
            lane=lane,
            max_attempts=attempts,
            timeout_us=int(timeout_s * 1e6),
            created_us=now_us,
            updated_us=now_us,
            transform=rule.transform,
            deadline_us=envelope.expires_us,
        )
        if envelope.hops >= MAX_HOPS:
            return ended(delivery, Outcome.DEAD, "loop")
        if envelope.expires_us is not None and envelope.expires_us <= now_us:
            return ended(delivery, Outcome.EXPIRED, "expires")
        return delivery
