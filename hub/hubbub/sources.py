"""Guards of sources: how fast, how much and how large somebody may publish.

A source is the address its envelopes carry: `api.<token>`, `stream.<name>`, what an adapter says.
Entries of `[[guards.source]]` hold for all of them; `hub.publish_rate` for whoever came with a
token and has no rate of an entry. The hub's own envelopes are not guarded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from hubbub.envelope import Envelope
from hubbub.errors import BusyError, RateLimitedError, TooLargeError
from hubbub.guards import GuardRule, TokenBucket, rule_for
from hubbub.values import Principal

__all__ = ["SourceGuard", "Sources"]

MAX_SOURCES: Final = 4096
"""Sources remembered; the one that was silent longest begins anew, unless it is busy."""

OWN: Final = "hub"
"""Adapter of the envelopes that the hub itself publishes."""


class SourceGuard:
    """What guards one source.

    Attributes:
        under_way: Calls that publish now.
        connections: Streams that are open.
    """

    __slots__ = ("bucket", "burst", "connections", "name", "rule", "setting", "under_way")

    def __init__(self, name: str, rule: GuardRule, *, setting: str) -> None:
        self.name: Final = name
        self.rule: Final = rule
        self.setting: Final = setting
        self.bucket: Final[TokenBucket | None] = rule.bucket()
        self.burst: Final = rule.burst_tokens
        self.under_way = 0
        self.connections = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of it would be forgotten with it, but for its rate."""
        return not (self.under_way or self.connections)

    def check(self, envelopes: Sequence[Envelope], *, now_s: float) -> None:
        """Count envelopes that the source wants to publish by a call that is under way already.

        A batch over the burst takes all of it: it is refused only while the bucket is not full.

        Raises:
            TooLargeError: the data of one is larger than this source may send.
            BusyError: too many calls are under way.
            RateLimitedError: too many came of late.
        """
        rule = self.rule
        if rule.size_bytes:
            largest = max((len(envelope.data) for envelope in envelopes), default=0)
            if largest > rule.size_bytes:
                raise TooLargeError(
                    what="data",
                    size_bytes=largest,
                    limit_bytes=rule.size_bytes,
                    setting=f"size of {self.setting}",
                )
        what = f"publishing by {self.name!r}"
        if rule.concurrency and self.under_way > rule.concurrency:
            setting = f"concurrency of {self.setting}"
            raise BusyError(what=what, limit=rule.concurrency, setting=setting)
        if self.bucket is not None:
            wait_s = self.bucket.take(now_s, min(len(envelopes), self.burst))
            if wait_s:
                raise RateLimitedError(what=what, after_s=wait_s, setting=self.setting)


class Sources:
    """The guards of all sources of one hub.

    Attributes:
        active: Whether anybody is guarded at all.
    """

    def __init__(self, publish_rate: float = 0.0, rules: Sequence[GuardRule] = ()) -> None:
        self._guards: OrderedDict[str, SourceGuard] = OrderedDict()
        self.active = False
        self.change(publish_rate, rules)

    def change(self, publish_rate: float, rules: Sequence[GuardRule]) -> None:
        """Hold everybody to other limits; whoever's limits are others begins anew."""
        self._rules = tuple(rules)
        self._default = GuardRule(match=">", rate_per_s=publish_rate)
        self.active = bool(self._rules or publish_rate)
        for name, guard in list(self._guards.items()):
            if guard.rule not in (rule_for(self._rules, name), self._default):
                del self._guards[name]

    def find(self, name: str) -> SourceGuard | None:
        """Return what guards a source that has been heard of; for those who look."""
        return self._guards.get(name)

    def guard_of(
        self, envelopes: Sequence[Envelope], principal: Principal | None
    ) -> SourceGuard | None:
        """Return what guards whoever publishes these; None for nothing."""
        if principal is not None:
            return self.of(principal.source, default=True)
        if not self._rules or not envelopes:
            return None
        source = envelopes[0].source
        return None if source.split(".", 1)[0] == OWN else self.of(source)

    def of(self, name: str, *, default: bool = False) -> SourceGuard | None:
        """Return what guards a source; None for nothing.

        Args:
            default: `hub.publish_rate` holds where no entry covers it.
        """
        if not (self._rules or (default and self._default.rate_per_s)):
            return None
        guard = self._guards.get(name)
        if guard is not None:
            self._guards.move_to_end(name)
            return guard
        rule = rule_for(self._rules, name)
        setting = "hub.publish_rate" if rule is None else f"[[guards.source]] {rule.match!r}"
        if rule is None and not (default and self._default.rate_per_s):
            return None
        guard = self._guards[name] = SourceGuard(name, rule or self._default, setting=setting)
        if len(self._guards) > MAX_SOURCES:
            oldest = next((each for each, known in self._guards.items() if known.idle), None)
            if oldest is not None:
                del self._guards[oldest]
        return guard

    def connect(self, name: str, *, replacing: bool = False) -> Callable[[], None]:
        """Let a source open one stream more; returns what notes its end.

        Args:
            replacing: One that is open ends for it.

        Raises:
            BusyError: it has as many as it may.
        """
        guard = self.of(name)
        if guard is None:
            return _nothing
        most = guard.rule.connections
        if most and guard.connections - replacing >= most:
            raise BusyError(
                what=f"streams of {name!r}",
                limit=most,
                setting=f"connections of {guard.setting}",
            )
        guard.connections += 1

        def closed() -> None:
            guard.connections -= 1

        return closed


def _nothing() -> None:
    """Note the end of a stream that nobody counts."""
