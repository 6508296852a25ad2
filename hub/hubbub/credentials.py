"""Credentials that hold, and what is open by means of each: connections, waits, leases.

Whatever ends a credential (somebody revoked it, its time is over, it is not in hub.toml any more)
ends here all that was opened with it. A message costs nothing: only what stays open is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from hubbub.errors import CredentialEndedError
from hubbub.ports import Clock, Timer

__all__ = ["LOOK_US", "CredentialRegistry"]

LOOK_US: Final = 1_000_000
"""Longest between two looks at the clock while something open has an end: the clock may be set."""

_ENDED_US: Final = -1
"""When a credential has ended that is not known."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Use:
    """Something that is open."""

    end: Callable[[str], None]
    expires_us: int | None


class CredentialRegistry:
    """The credentials of one hub (`ports.Credentials`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expires: dict[str, int | None] = {"": None}  # no credential at all never ends
        self._uses: dict[str, dict[_Use, None]] = {}
        self._expiring: dict[_Use, str] = {}
        self._timer: Timer | None = None
        self._timer_us = 0

    def count(self, credential: str) -> int:
        """Return how much is open by means of a credential."""
        return len(self._uses.get(credential, ()))

    def admit(self, credential: str, *, expires_us: int | None = None) -> None:
        """Let a credential hold from now on."""
        self._expires[credential] = expires_us

    def revoke(self, credential: str, reason: str = "revoked") -> None:
        """End a credential, and all that is open by means of it."""
        self._expires.pop(credential, None)
        for use in tuple(self._uses.get(credential, ())):
            self._end(credential, use, reason)

    def holds(self, credential: str) -> bool:
        """Tell whether a credential holds now."""
        until_us = self._expires.get(credential, _ENDED_US)
        return until_us is None or until_us > self._clock.now_us()

    def check(self, credential: str) -> None:
        """Check that a credential holds now.

        Raises:
            CredentialEndedError: it does not.
        """
        until_us = self._expires.get(credential, _ENDED_US)
        if until_us is not None and until_us <= self._clock.now_us():
            raise CredentialEndedError("expired" if credential in self._expires else "revoked")

    def open(
        self, credential: str, end: Callable[[str], None], *, expires_us: int | None = None
    ) -> Callable[[], None]:
        """Note something that is open; returns what forgets it.

        Raises:
            CredentialEndedError: the credential does not hold any more.
        """
        self.check(credential)
        until = [at for at in (self._expires.get(credential), expires_us) if at is not None]
        use = _Use(end, min(until, default=None))
        self._uses.setdefault(credential, {})[use] = None
        if use.expires_us is not None:
            self._expiring[use] = credential
            self._watch(use.expires_us)
        return lambda: self._forget(credential, use)

    @asynccontextmanager
    async def within(self, credential: str) -> AsyncGenerator[None]:
        """Leave the context when a credential ends; what is awaited inside is cancelled.

        Raises:
            CredentialEndedError: it has ended.
        """
        ending = asyncio.timeout(None)
        reasons: list[str] = []

        def end(reason: str) -> None:
            reasons.append(reason)
            if ending.when() is None:
                ending.reschedule(asyncio.get_running_loop().time())

        try:
            async with ending:
                forget = self.open(credential, end)
                try:
                    yield
                finally:
                    forget()
        except TimeoutError:
            if not reasons:
                raise
            raise CredentialEndedError(reasons[0]) from None

    def close(self) -> None:
        """End nothing any more: the hub stops, and with it all that is open."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expiring.clear()
        self._uses.clear()

    def _forget(self, credential: str, use: _Use) -> None:
        self._expiring.pop(use, None)
        uses = self._uses.get(credential)
        if uses is not None:
            uses.pop(use, None)
            if not uses:
                del self._uses[credential]

    def _end(self, credential: str, use: _Use, reason: str) -> None:
        self._forget(credential, use)
        try:
            use.end(reason)
        except Exception:  # it may be of an adapter; what else is open ends all the same
            log.exception("credential.use_not_ended", credential=credential)

    def _watch(self, expires_us: int) -> None:
        """Look at the clock when the next use may have expired, and once a second until then."""
        due_us = min(expires_us, self._clock.now_us() + LOOK_US)
        if self._timer is not None:
            if self._timer_us <= due_us:
                return
            self._timer.cancel()
        self._timer_us = due_us
        self._timer = self._clock.call_at(due_us, self._look)

    def _look(self) -> None:
        self._timer = None
        now_us = self._clock.now_us()
        next_us: int | None = None
        for use, credential in tuple(self._expiring.items()):
            assert use.expires_us is not None
            if use.expires_us <= now_us:
                self._end(credential, use, "expired")
            elif next_us is None or use.expires_us < next_us:
                next_us = use.expires_us
        if next_us is not None:
            self._watch(next_us)
