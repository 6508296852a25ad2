"""Guards of endpoints: hand over not too fast, and not to one that fails.

What a guard holds back is no attempt: a durable delivery waits until the guard's time, a volatile
one is `dropped` with the guard's name, `rate` or `breaker`. An endpoint without a guard costs one
look at its link.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from hubbub.guards import Breaker, BreakerState, GuardRule, rule_for
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock
from hubbub.values import Delivery

__all__ = ["EndpointGuard", "Guarding"]


class EndpointGuard:
    """What guards one endpoint, over all its links.

    Attributes:
        breaker: None where the rule has none.
        waits_until_us: When it is looked at again; None when nothing waits for it.
    """

    __slots__ = ("breaker", "bucket", "rule", "waits_until_us")

    def __init__(self, rule: GuardRule) -> None:
        self.rule: Final = rule
        self.bucket: Final = rule.bucket()
        self.breaker = None if rule.breaker is None else Breaker(rule.breaker)
        self.waits_until_us: int | None = None

    @property
    def wary(self) -> bool:
        """Whether it has failed of late, and has not yet done better."""
        return self.breaker is not None and self.breaker.state is not BreakerState.CLOSED

    def wait(self, now: float) -> tuple[float, str]:
        """Return the seconds until something may be handed over, and what says so."""
        if self.breaker is not None and (wait_s := self.breaker.wait_s(now)):
            return wait_s, "breaker"
        if self.bucket is not None and (wait_s := self.bucket.wait_s(now)):
            return wait_s, "rate"
        return 0.0, ""

    def excess(self, size: int) -> str | None:
        """Return what is wrong with data of so many bytes; None for nothing."""
        most = self.rule.size_bytes
        return f"data has {size} bytes, its guard allows {most}" if most and size > most else None


class Guarding:
    """The guards of all endpoints of one hub."""

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        call_at: Callable[[int, Callable[[], None]], None],
        ready: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._call_at = call_at
        self._ready = ready
        self._rules: Sequence[GuardRule] = ()
        self._defaults: dict[str, GuardRule] = {}
        self._guards: dict[str, EndpointGuard] = {}

    def change(self, rules: Sequence[GuardRule]) -> None:
        """Hold to other rules; what an entry that stays has learned of an endpoint stays too."""
        self._rules = tuple(rules)
        self._forget_others()

    def add_default(self, rule: GuardRule) -> None:
        """Hold what no rule covers to another one; the latest for a pattern holds."""
        self._defaults[rule.match] = rule
        self._forget_others()

    def _forget_others(self) -> None:
        for address, guard in list(self._guards.items()):
            if self._rule_for(address) != guard.rule:
                del self._guards[address]

    def _rule_for(self, address: str) -> GuardRule | None:
        return rule_for(self._rules, address) or rule_for(self._defaults.values(), address)

    def of(self, address: str) -> EndpointGuard | None:
        """Return what guards an endpoint; None for nothing."""
        guard = self._guards.get(address)
        if guard is None and (rule := self._rule_for(address)) is not None:
            guard = self._guards[address] = EndpointGuard(rule)
        return guard

    def find(self, address: str) -> EndpointGuard | None:
        """Return what guards an endpoint that has been here; for those who look."""
        return self._guards.get(address)

    def forget(self, address: str) -> None:
        """The endpoint is gone."""
        self._guards.pop(address, None)

    def states(self) -> list[tuple[str, BreakerState]]:
        """Return the state of every breaker, by the adapter of its endpoint."""
        return [
            (_adapter(address), guard.breaker.state)
            for address, guard in self._guards.items()
            if guard.breaker is not None
        ]

    # Handing over

    def held(self, address: str, guard: EndpointGuard) -> str | None:
        """Return what holds an endpoint back, None for nothing; `ready` is called when it ends."""
        now_us = self._clock.now_us()
        wait_s, what = guard.wait(now_us / 1e6)
        if not wait_s:
            return None
        if not math.isinf(wait_s) and guard.waits_until_us is None:
            self._metrics.guard_holds[_adapter(address), what].inc()
            guard.waits_until_us = now_us + math.ceil(wait_s * 1e6)
            self._call_at(guard.waits_until_us, lambda: self._over(address, guard))
        return what

    def _over(self, address: str, guard: EndpointGuard) -> None:
        guard.waits_until_us = None
        self._ready(address)

    def begun(self, guard: EndpointGuard, delivery: Delivery) -> None:
        """Note that a delivery is handed over, which nothing held back."""
        if guard.bucket is not None:
            guard.bucket.take(self._clock.now_us() / 1e6)
        if guard.breaker is not None:
            guard.breaker = guard.breaker.begin(delivery.id)

    # What came of it

    def succeeded(self, delivery: Delivery) -> None:
        """The endpoint took it, or said no by its own protocol."""
        guard = self._of(delivery)
        if guard is not None and guard.breaker is not None:
            guard.breaker = guard.breaker.succeed(delivery.id, self._clock.now_us() / 1e6)

    def failed(self, delivery: Delivery) -> float | None:
        """The endpoint did not answer, or answered with an error.

        Returns:
            For the probe of a breaker, which is no attempt of its delivery: the seconds until
            there is another one. None for everything else.
        """
        guard = self._of(delivery)
        if guard is None or (before := guard.breaker) is None:
            return None
        now = self._clock.now_us() / 1e6
        after = guard.breaker = before.fail(delivery.id, now)
        if after.opened > before.opened:
            address = delivery.endpoint or delivery.mailbox
            self._metrics.breaker_opened[_adapter(address)].inc()
        probed = before.state is BreakerState.HALF_OPEN and after.state is BreakerState.OPEN
        return after.wait_s(now) if probed and not before.rule.probe_counts else None

    def probes(self, delivery: Delivery) -> bool:
        """Tell whether a breaker waits for what comes of this very delivery."""
        guard = self._of(delivery)
        return (
            guard is not None
            and guard.breaker is not None
            and guard.breaker.probe == delivery.id
        )  # fmt: skip

    def left(self, delivery: Delivery) -> None:
        """It is in flight no more; a probe of which nothing was said decides nothing."""
        guard = self._of(delivery)
        if guard is not None and guard.breaker is not None:
            guard.breaker = guard.breaker.take_back(delivery.id)

    def _of(self, delivery: Delivery) -> EndpointGuard | None:
        if not self._guards:
            return None
        return self._guards.get(delivery.endpoint or delivery.mailbox)


def _adapter(address: str) -> str:
    return address.split(".", 1)[0]
