"""Whether the store can be written, and if not, why and since when."""

from __future__ import annotations

from time import monotonic

import structlog

from hubbub.errors import HubError, StoreUnavailableError
from hubbub.store.commits import CutOffError
from hubbub.store.outages import StoreDamagedError, is_damage, reason_of

__all__ = ["Condition"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Condition:
    """What the journal knows of the store; set on its thread and on the event loop, read on both.

    Attributes:
        problem: Why it cannot be written; None while it can.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._kind: type[StoreUnavailableError] = StoreUnavailableError
        self._since = 0.0

    @property
    def out_s(self) -> float:
        """How long it has been so, from the beginning of what failed first."""
        return monotonic() - self._since

    def broken(self, error: Exception, *, since: float) -> Exception:
        """It cannot be written; returns the driver's error where a commit was cut off.

        Args:
            since: When what failed began, in monotonic seconds.
        """
        if isinstance(error, CutOffError):
            error = error.cause
        reason = error.message if isinstance(error, HubError) else reason_of(error)
        if isinstance(error, StoreUnavailableError):
            self._kind = type(error)
        else:
            self._kind = StoreDamagedError if is_damage(error) else StoreUnavailableError
        if self.problem is None:
            self._since = since
            log.error("store.unavailable", error=reason)
        self.problem = f"the store cannot be written: {reason}"
        return error

    def recovered(self) -> None:
        """It can be written again."""
        if self.problem is not None:
            log.info("store.recovered", out_s=round(self.out_s, 3))
            self.problem = None

    def refusal(self) -> StoreUnavailableError:
        """Return what those are told who wait."""
        return self._kind(str(self.problem))
