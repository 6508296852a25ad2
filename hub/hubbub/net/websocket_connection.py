"""A WebSocket that the hub has opened, as an object with the life of a connection that came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hubbub.net.dialer import Dial
    from hubbub.net.websocket_link import WebSocketLink

__all__ = ["WebSocketConnection"]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001


class WebSocketConnection:
    """One link of a dial. A protocol is a subclass that overrides `received`.

    `opened`, `received`, `refused` and `closed` are called on the event loop: keep them short. A
    `HubError` in `received` refuses that message, which is counted under its code; any other
    exception is logged and ends this link only.

    Attributes:
        close_code: How it ended: the peer's code, or else ours; 1006 where there was none.
        close_reason: The text beside it.
    """

    def __init__(self) -> None:
        self.close_code = 0
        self.close_reason = ""
        self._link: WebSocketLink | None = None

    # To override

    def opened(self) -> None:
        """Begin; the peer may be written to."""

    def received(self, message: str | bytes) -> None:
        """Take a whole message: text, or bytes."""

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The peer has answered the handshake with this instead; it is dialled again later.

        Args:
            headers: Names in lower case.
            body: The first 64 KiB of it.
        """

    def closed(self) -> None:
        """End; nothing can be written any more. Only called after `opened`."""

    def leave(self) -> None:
        """The dial is closed; say goodbye if the protocol has a word for it, and close."""
        self.close(GOING_AWAY)

    # To call

    @property
    def link(self) -> WebSocketLink:
        """Its side of the wire."""
        assert self._link is not None, "a connection is used before it was opened"
        return self._link

    @property
    def dial(self) -> Dial:
        """What dials it again when it has ended."""
        return self.link.dial

    @property
    def peer(self) -> str:
        """Address of the peer."""
        return self.link.peer

    @property
    def subprotocol(self) -> str | None:
        """What the peer has chosen of those that were offered."""
        return self.link.protocol.subprotocol

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._link is not None and self._link.is_usable

    @property
    def paused(self) -> bool:
        """Whether `pause` was called: nothing is read."""
        return self.link.paused

    def write(self, message: str | bytes) -> None:
        """Send a message; joined with what else is written in this turn of the event loop.

        It is dropped when the link has ended. A peer for which more than 4 MiB and a frame wait is
        closed.
        """
        self.link.write_message(message)

    async def send(self, message: str | bytes) -> None:
        """Send a message, and return when the peer keeps up: what `deliver` waits for.

        Raises:
            Retry: the link has ended.
        """
        self.link.write_message(message)
        await self.link.drained()

    def pause(self) -> None:
        """Read nothing more for now; the peer has to wait, and is not asked whether it lives."""
        self.link.pause()

    def resume(self) -> None:
        """Read on; what had come is handed over first."""
        self.link.resume()

    def refuse(self, reason: str) -> None:
        """Count a message that could not be used; the link goes on."""
        self.link.refuse(reason)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Send what was written, then end; what still comes is not handed over.

        A peer that does not answer is cut off after `DialTimes.close_s`.
        """
        self.link.say_goodbye(code, reason)

    def abort(self) -> None:
        """End at once."""
        self.link.abort()

    def settle(self, link: WebSocketLink) -> None:
        """Belong to a link; the dialer calls it."""
        self._link = link
