"""What is open by means of a credential, and ends with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

__all__ = ["Credentials"]


class Credentials(Protocol):
    """Credentials that hold, and what is open by means of each.

    A credential has an id that is never another one's: the id of a token, or a name that begins
    with that of the adapter it belongs to, such as `relay.key.master`. An empty id stands for no
    credential: it always holds and never ends.
    """

    def admit(self, credential: str, *, expires_us: int | None = None) -> None:
        """Let a credential hold from now on.

        Args:
            expires_us: When it ends by itself, microseconds since the epoch; None for never.
        """
        ...

    def revoke(self, credential: str, reason: str = "revoked") -> None:
        """End a credential, and before this returns all that is open by means of it."""
        ...

    def holds(self, credential: str) -> bool:
        """Tell whether a credential holds now."""
        ...

    def check(self, credential: str) -> None:
        """Check that a credential holds now.

        Raises:
            CredentialEndedError: it does not.
        """
        ...

    def open(
        self, credential: str, end: Callable[[str], None], *, expires_us: int | None = None
    ) -> Callable[[], None]:
        """Note something that is open by means of a credential.

        Args:
            end: Ends it, without waiting; called once, with `revoked`, `expired` or `removed`.
            expires_us: When it ends, where that is earlier than its credential does.

        Returns:
            What is to be called when it has ended by itself.

        Raises:
            CredentialEndedError: the credential does not hold any more.
        """
        ...

    def within(self, credential: str) -> AbstractAsyncContextManager[None]:
        """Return a context that is left when a credential ends; what is awaited is cancelled.

        Raises:
            CredentialEndedError: it has ended.
        """
        ...
