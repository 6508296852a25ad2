"""Dialling TCP."""

from __future__ import annotations

from collections.abc import Callable

from hubbub.config import Address, ClientTlsSettings
from hubbub.listeners.connections import Connection
from hubbub.net.dialer import Dial, DialEnv, DialPolicy
from hubbub.net.targets import Target

__all__ = ["dial_tcp"]


def dial_tcp(
    address: Address,
    make: Callable[[], Connection],
    *,
    env: DialEnv,
    source: str | None = None,
    tls: ClientTlsSettings | None = None,
    policy: DialPolicy | None = None,
) -> Dial:
    """Return a dial of a TCP address, not begun.

    Args:
        source: Own address that connections come from.
    """
    shown = f"{'tcp' if tls is None else 'tls'}://{address}"

    async def made(dial: Dial) -> Connection:
        del dial
        return make()

    return Dial(
        Target(address, shown, tls, source),
        made,
        env=env,
        policy=policy or DialPolicy(),
    )
