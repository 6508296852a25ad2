"""What a running hub serves without a secret of its operator's own, in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hubbub.config.origins import is_loopback_url
from hubbub.core import Core
from hubbub.ports import OpenAccess

__all__ = ["open_access"]


def open_access(core: Core, *, loopback: bool) -> str:
    """Return what is open to whom; empty when everything wants a secret.

    Args:
        loopback: Whether the one port is bound to loopback.
    """
    found = list(_open(core, loopback=loopback))
    groups = (
        ("to local requests", [one.what for one in found if not one.everybody]),
        ("to everybody", [one.what for one in found if one.everybody]),
    )
    told = [f"{who}: {', '.join(what)}" for who, what in groups if what]
    return f"open without a secret {'; '.join(told)}" if told else ""


def _open(core: Core, *, loopback: bool) -> Iterator[OpenAccess]:
    hub = core.config.hub
    is_private = not hub.public_url or is_loopback_url(hub.public_url)
    if loopback and is_private:
        yield OpenAccess("/metrics", everybody=False)
    for one in core.adapters:
        asked: Any = getattr(one.adapter, "open_without_secret", None)
        if asked is None or not one.started:
            continue
        given: Sequence[OpenAccess] = asked()
        has_local = is_private and (loopback or _listens_on_loopback(core, one.name))
        yield from (access for access in given if access.everybody or has_local)


def _listens_on_loopback(core: Core, adapter: str) -> bool:
    """Tell whether one of an adapter's own listeners is bound to loopback."""
    return any(getattr(listener, "is_loopback", False) for listener in core.listeners.of(adapter))
