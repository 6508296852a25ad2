"""What an adapter is, to the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hubbub.ports.hub import HubApi

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from hubbub.config import Settings


__all__ = ["Adapter", "GuardedAdapter", "HttpAdapter", "OpenAccess", "PeerAdapter"]


class Adapter(Protocol):
    """A plugin object that speaks one protocol.

    Attributes:
        name: Its table in hub.toml, its label in metrics, the first token of its addresses.
    """

    name: str

    @property
    def Config(self) -> type[Settings]:  # noqa: N802  # a class; any subclass may stand there
        """Model of `[adapters.<name>]`."""
        ...

    async def start(self, hub: HubApi) -> None:
        """Begin; raises when it cannot, and is tried again."""
        ...

    async def stop(self) -> None:
        """End within the drain timeout."""
        ...


class PeerAdapter(Adapter, Protocol):
    """An adapter whose peers want to be told that the hub stops."""

    async def pause_peers(self) -> None:
        """The hub takes nothing new: tell peers that nothing more will come; acks still count."""
        ...

    async def close_peers(self) -> None:
        """What was under way has ended or was given back: close the connections."""
        ...


class HttpAdapter(Adapter, Protocol):
    """An adapter with paths of its own on the one port and on its listeners."""

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return its Starlette routes."""
        ...


class OpenAccess(NamedTuple):
    """Something that an adapter serves without a secret of the operator's own.

    Attributes:
        what: In a few words, such as `KenkoGo applications`.
        everybody: Whether it is open to everybody, and not to local requests alone.
    """

    what: str
    everybody: bool


class GuardedAdapter(HttpAdapter, Protocol):
    """An adapter that says what it serves without a secret, for `hubbub run` to tell."""

    def open_without_secret(self) -> Sequence[OpenAccess]:
        """Return what that is while it is up, by its settings."""
        ...
