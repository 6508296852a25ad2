"""Failed attempts by name, bounded in number: how many of late, and when one more is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Final

from hubbub.guards.bucket import TokenBucket

__all__ = ["MAX_REMEMBERED", "FailedAttempts", "PasswordLimits", "name_of"]

MAX_REMEMBERED: Final = 16_384
"""Names that are remembered; then the one that has the least against it is forgotten."""

_SPARE: Final = 64


def name_of(*parts: str) -> bytes:
    """Return one name of 16 bytes for texts of any length, which others may have chosen."""
    said = "".join(f"{len(part)}:{part}" for part in parts)
    return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class PasswordLimits:
    """Failures within `window_s`, each at least 1; `setting` is what these settings begin with.

    Attributes:
        pair: Of one user from one source.
        source: From one source, with whatever user.
        user: Of one user, from whatever source.
    """

    pair: int
    source: int
    user: int
    window_s: float
    setting: str


@dataclass(slots=True)
class _Failures:
    """What is known of one name; `told_s` is when its limit was last reported."""

    bucket: TokenBucket
    told_s: float = -math.inf


class FailedAttempts:
    """At most `limit` failures of one name at once, and `limit` per window in the long run.

    Names are forgotten when nothing is against them any more. When there are too many, the one
    goes that would be forgotten first anyway: whoever fails under many names does not push out the
    one whose limit is reached.
    """

    def __init__(self, limit: int, window_s: float, *, maximum: int = MAX_REMEMBERED) -> None:
        """Begin without failures.

        Args:
            limit: 0 for no limit.
            window_s: Over 0.
        """
        self.limit: Final = limit
        self.window_s: Final = window_s
        self._maximum = maximum
        self._start_s: float | None = None
        self._names: dict[bytes, _Failures] = {}
        self._order: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._names)

    def wait_s(self, name: bytes, *, now_s: float) -> float:
        """Return the seconds until a failure of this name would be within the limit; 0 for now."""
        known = self._names.get(name)
        return 0.0 if known is None else known.bucket.wait_s(self._since_start(now_s))

    def count(self, name: bytes, *, now_s: float) -> float:
        """Count one failure, if it is within the limit.

        Returns:
            0.0 when it was counted, else the seconds after which one more would be.
        """
        if not self.limit:
            return 0.0
        now_s = self._since_start(now_s)
        self._forget(now_s)
        known = self._names.get(name)
        if known is None:
            bucket = TokenBucket(self.limit / self.window_s, self.limit)
            known = self._names[name] = _Failures(bucket)
        wait_s = known.bucket.take(now_s)
        if not wait_s:
            self._remember(name, known)
        return wait_s

    def give_back(self, name: bytes) -> None:
        """Take back one failure that was counted before the attempt turned out well."""
        known = self._names.get(name)
        if known is not None:
            known.bucket.give_back()
            self._remember(name, known)

    def forgive(self, name: bytes) -> None:
        """Forget all failures of a name."""
        self._names.pop(name, None)

    def is_news(self, name: bytes, *, now_s: float) -> bool:
        """Tell whether it was not reported within the window that a name is over its limit."""
        known = self._names.get(name)
        if known is None or now_s - known.told_s < self.window_s:
            return False
        known.told_s = now_s
        return True

    def _since_start(self, now_s: float) -> float:
        """Return a time that is small, so that sums of many intervals are exact enough."""
        if self._start_s is None:
            self._start_s = now_s
        return now_s - self._start_s

    def _remember(self, name: bytes, known: _Failures) -> None:
        heappush(self._order, (known.bucket.full_at, name))
        if len(self._names) > self._maximum:
            self._pop(lambda _: len(self._names) > self._maximum)
        if len(self._order) > 2 * len(self._names) + _SPARE:
            self._order = [(each.bucket.full_at, key) for key, each in self._names.items()]
            heapify(self._order)

    def _forget(self, now_s: float) -> None:
        self._pop(lambda full_at: full_at <= now_s)

    def _pop(self, wanted: Callable[[float], bool]) -> None:
        """Forget names in the order in which nothing is against them any more."""
        while self._order and wanted(self._order[0][0]):
            full_at, name = heappop(self._order)
            known = self._names.get(name)
            if known is not None and known.bucket.full_at == full_at:  # else it has failed since
                del self._names[name]
