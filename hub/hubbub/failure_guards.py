"""Credentials that are not valid: counted by where they come from, and slowed down.

Two rules, for two kinds of secrets:

* A **token or key** has so many bits that nobody guesses it. It is looked at first, and one that is
  valid is always taken. What is not valid counts against its source, and over the limit it is
  answered 429 instead of 401: nobody behind the same address is locked out (`CredentialGuard`).
* A **password** can be guessed and costs much to check. So it is not even looked at once there were
  too many failures: of this user from this source, of this source with whatever user, or of this
  user from whatever source. The last two do not hold for a user at a source where that user has
  logged in before, so that failures of others elsewhere lock nobody out of the usual place; from a
  new place the user has to wait as long as many sources try the name (`PasswordGuard`).

A source is an IPv4 address or an IPv6 network of 64 bits, as everywhere in the hub.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hubbub.errors import TooManyFailuresError
from hubbub.guards import MAX_REMEMBERED, FailedAttempts, PasswordLimits, name_of
from hubbub.listeners.sockets import source_of
from hubbub.observe.metrics import Metrics
from hubbub.ports import Clock

__all__ = ["Attempt", "CredentialGuard", "PasswordGuard"]

MAX_SHOWN: Final = 128
"""Characters of a name that is shown to operators; others choose it."""

Report = Callable[[str, str, str], None]
"""Takes who was slowed down, for what, and details, for the audit."""


class CredentialGuard:
    """Failures with tokens, keys and signatures, by kind and source; valid ones never come here.

    Attributes:
        report: Called when a source is over its limit, once per window.
    """

    def __init__(
        self, limit: int, window_s: float, *, clock: Clock, metrics: Metrics, report: Report
    ) -> None:
        self.report: Final = report
        self._clock = clock
        self._metrics = metrics
        self._failures = FailedAttempts(limit, window_s)

    def change(self, limit: int, window_s: float) -> None:
        """Hold to other limits; where they are others, everybody begins anew."""
        if (limit, window_s) != (self._failures.limit, self._failures.window_s):
            self._failures = FailedAttempts(limit, window_s)

    def count(self, kind: str, peer: str | None) -> float:
        """Count a credential that was not valid.

        Args:
            kind: Short name of what it was to be, such as `token`; a label of metrics.
            peer: Address that it came from; None where that is not known.

        Returns:
            0.0 while its source is within the limit, else the seconds until it will be.
        """
        now_s = self._clock.now_us() / 1e6
        source = source_of(peer or "")[0]
        name = name_of(kind, source)
        self._metrics.auth_failures[kind].inc()
        wait_s = self._failures.count(name, now_s=now_s)
        if wait_s:
            self._metrics.auth_refused[kind].inc()
            if self._failures.is_news(name, now_s=now_s):
                self.report(_shown(source), kind, f"over {self._failures.limit} were not valid")
        return wait_s

    def failed(self, kind: str, peer: str | None) -> None:
        """Count a credential that was not valid, as `count` does.

        Raises:
            TooManyFailuresError: its source is over the limit.
        """
        wait_s = self.count(kind, peer)
        if wait_s:
            raise TooManyFailuresError(what=kind, after_s=wait_s, setting="hub.auth_failure_limit")

    def passwords(self, kind: str, limits: PasswordLimits) -> PasswordGuard:
        """Return what guards the passwords of an adapter.

        Args:
            kind: As for `count`.
        """
        return PasswordGuard(
            kind, limits, clock=self._clock, metrics=self._metrics, report=self.report
        )


class PasswordGuard:
    """Attempts to log in: refused before the password is looked at, over any of three limits.

    Users are told apart by the name they give, whether there is one of that name or not, so that an
    answer does not tell.
    """

    def __init__(
        self,
        kind: str,
        limits: PasswordLimits,
        *,
        clock: Clock,
        metrics: Metrics,
        report: Report,
        maximum: int = MAX_REMEMBERED,
    ) -> None:
        self._kind = kind
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._report = report
        self._maximum = maximum
        window_s = limits.window_s
        self._pairs = FailedAttempts(limits.pair, window_s, maximum=maximum)
        self._sources = FailedAttempts(limits.source, window_s, maximum=maximum)
        self._users = FailedAttempts(limits.user, window_s, maximum=maximum)
        self._usual: OrderedDict[bytes, None] = OrderedDict()

    def check(self, user: str, peer: str | None) -> None:
        """Refuse an attempt that is over a limit now; nothing is counted.

        Raises:
            TooManyFailuresError: it is.
        """
        now_s = self._clock.now_us() / 1e6
        source = source_of(peer or "")[0]
        waits = [
            (failures.wait_s(name, now_s=now_s), setting, failures, name)
            for failures, name, setting in self._tables(user, source)
        ]
        wait_s, setting, failures, name = max(waits, key=lambda each: each[0])
        if not wait_s:
            return
        self._metrics.auth_refused[self._kind].inc()
        if failures.is_news(name, now_s=now_s):
            detail = f"user {_shown(user)!r}: {failures.limit} failures, the limit {setting}"
            self._report(_shown(source), self._kind, detail)
        raise TooManyFailuresError(what=self._kind, after_s=wait_s, setting=setting)

    def attempt(self, user: str, peer: str | None) -> Attempt:
        """Begin an attempt, which counts as a failure until it turns out well.

        So attempts at the same time cannot be more than the limit, either.

        Raises:
            TooManyFailuresError: over a limit.
        """
        self.check(user, peer)
        now_s = self._clock.now_us() / 1e6
        source = source_of(peer or "")[0]
        counted = [(failures, name) for failures, name, _ in self._tables(user, source)]
        for failures, name in counted:
            failures.count(name, now_s=now_s)
        return Attempt(self, user, peer, tuple(counted))

    def remember(self, user: str, peer: str | None) -> None:
        """Note that a user is at this source by right: failures of others do not count there."""
        pair = name_of(user, source_of(peer or "")[0])
        self._usual[pair] = None
        self._usual.move_to_end(pair)
        if len(self._usual) > self._maximum:
            self._usual.popitem(last=False)

    def failed(self) -> None:
        """Count an attempt that turned out badly, for metrics."""
        self._metrics.auth_failures[self._kind].inc()

    def forgive(self, user: str, peer: str | None) -> None:
        """Forget failures of a user from one source."""
        self._pairs.forgive(name_of(user, source_of(peer or "")[0]))

    def _tables(self, user: str, source: str) -> list[tuple[FailedAttempts, bytes, str]]:
        """Return what an attempt counts against, and the setting of each limit."""
        setting, pair = self._limits.setting, name_of(user, source)
        tables = [(self._pairs, pair, setting)]
        if pair not in self._usual:
            tables.append((self._sources, name_of(source), f"{setting}_per_source"))
            tables.append((self._users, name_of(user), f"{setting}_per_user"))
        return tables


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to log in that may be made."""

    guard: PasswordGuard
    user: str
    peer: str | None
    counted: tuple[tuple[FailedAttempts, bytes], ...]

    def succeeded(self) -> None:
        """The password was right: the attempt does not count, nor do failures before it here."""
        for failures, name in self.counted:
            failures.give_back(name)
        self.guard.forgive(self.user, self.peer)
        self.guard.remember(self.user, self.peer)

    def failed(self) -> None:
        """The password was wrong."""
        self.guard.failed()


def _shown(text: str) -> str:
    """Return a text as it may stand in the audit: whatever a client chose, short and printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_SHOWN])
