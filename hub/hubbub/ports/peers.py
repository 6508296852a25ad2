"""Links and listeners: what an adapter holds of its peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubbub.config import Address, LimitSettings, TlsSettings


__all__ = ["Link", "Listener"]


class Link(Protocol):
    """One living attachment of an endpoint."""

    @property
    def slots(self) -> int:
        """Envelopes it takes at once; 0 pauses it."""
        ...

    @slots.setter
    def slots(self, slots: int) -> None: ...

    def refresh(self) -> None:
        """Its endpoint's labels or task types have changed: give it what is for it now."""
        ...

    @property
    def waiting(self) -> int:
        """Deliveries that wait for it in its own mailbox."""
        ...

    def close(self) -> None:
        """End this attachment only; a newer one of the same address stays."""
        ...

    def sent(self, envelope_id: str) -> None:
        """An envelope it was given was written to its peer, which is to acknowledge it.

        For endpoints whose `deliver` returns when the peer has said so: a trace then tells both.
        Tasks need none, their attempts tell that.
        """
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing waits for it in its own mailbox, and nothing is in its hand."""
        ...

    def forget_if_idle(self) -> bool:
        """End this attachment, and forget its endpoint, if nothing waits for it or is in its hand.

        Returns:
            Whether it is forgotten.
        """
        ...


class Listener(Protocol):
    """An address that is listened on, or will be as soon as it can be had.

    Attributes:
        on_close: Told once when it is closed; the hub's own.
    """

    on_close: Callable[[], None] | None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left that `stop` would end, once it is closed."""
        ...

    @property
    def kind(self) -> str:
        """`tcp`, `udp` or `http`."""
        ...

    @property
    def address(self) -> Address:
        """Where it listens; with its real port once it is bound."""
        ...

    @property
    def url(self) -> str:
        """Where it listens, as a URL."""
        ...

    def bind(self) -> None:
        """Take the address, without answering yet.

        Raises:
            HubError: it cannot be had, or its certificate cannot be used.
        """
        ...

    def change_limits(self, limits: LimitSettings) -> None:
        """Hold to other limits from here on; who is inside stays."""
        ...

    def renew(self, tls: TlsSettings | None) -> bool:
        """Read the certificate again; False where only a new listener can do as `tls` says.

        Raises:
            HubError: its files cannot be used; the old ones still are.
        """
        ...

    def close(self) -> None:
        """Give the address free; connections stay."""
        ...

    async def stop(self, timeout_s: float) -> None:
        """Close, and end the connections: politely until then, at once after that."""
        ...
