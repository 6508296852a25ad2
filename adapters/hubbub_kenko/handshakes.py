"""Sessions of Engine.IO that are no clients yet: counted from their first request, with a deadline.

A session joins the namespace and registers in time, or it ends. One that leaves the namespace
again has as long once more.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from hubbub.ports import Timer

if TYPE_CHECKING:
    from hubbub_kenko.desk import Desk

__all__ = ["Handshakes"]


class Handshakes:
    """The sessions of one running adapter, by their id."""

    def __init__(
        self,
        desk: Desk,
        *,
        is_registered: Callable[[str], bool],
        expire: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        """Begin with none.

        Args:
            is_registered: Tells whether a session is an application.
            expire: Ends a session.
        """
        self._desk: Final = desk
        self._is_registered = is_registered
        self._expire = expire
        self._deadlines: dict[str, Timer] = {}

    def begin(self, session: str) -> None:
        """Count a session that has just come."""
        self._desk.handshakes.add(session)
        if session not in self._deadlines:
            clock, within_s = self._desk.hub.clock, self._desk.settings.register_timeout
            due_us = clock.now_us() + int(within_s * 1e6) + 1
            self._deadlines[session] = clock.call_at(due_us, lambda: self._overdue(session))

    def join(self, session: str) -> None:
        """It is a client from here on, and counted as one; its deadline holds on."""
        self._desk.handshakes.discard(session)

    def end(self, session: str) -> None:
        """It is over."""
        self._desk.handshakes.discard(session)
        deadline = self._deadlines.pop(session, None)
        if deadline is not None:
            deadline.cancel()

    def close(self) -> None:
        """End those that are left."""
        for session in list(self._desk.handshakes):
            self._desk.spawn(self._expire(session))
        for session in list(self._deadlines):
            self.end(session)

    def _overdue(self, session: str) -> None:
        del self._deadlines[session]
        if not self._is_registered(session):
            self._desk.spawn(self._expire(session))
