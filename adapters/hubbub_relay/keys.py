"""Who calls, and what that caller may do. Keys are compared as hashes, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from hubbub.rights import task_types_of, works
from hubbub.values import Principal
from hubbub_relay.config import ALL_SCOPES, KeySettings, RelaySettings
from hubbub_relay.wire import FORBIDDEN, RelayError

__all__ = ["ANONYMOUS", "DEFAULT_KEY", "Caller", "Keys", "caller_of_token", "is_loopback"]

DEFAULT_KEY: Final = "lynker_relay_secret_2025"
"""The key that is built into the original's own clients."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key or a token.

    Attributes:
        speaks_as: Names it may use in `from`; empty for all. So with the next two.
        signs: There is a secret that signs what is posted for it.
    """

    name: str
    scopes: frozenset[str]
    speaks_as: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    signs: bool = True

    def may(self, *scopes: str) -> bool:
        """Tell whether it has one of these scopes."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)

    def need(self, *scopes: str) -> None:
        """Check that it has one of these scopes.

        Raises:
            RelayError: it has none.
        """
        if not self.may(*scopes):
            raise RelayError(FORBIDDEN, 403)

    def check_names(
        self, *, sender: str | None = None, to: str | None = None, cmd: str | None = None
    ) -> None:
        """Check names against its limits; None is nothing to check.

        Raises:
            RelayError: one is outside.
        """
        if not (self.speaks_as or self.to or self.cmd):
            return
        limits = ((self.speaks_as, sender), (self.to, to), (self.cmd, cmd))
        if not all(name is None or _within(limit, name) for limit, name in limits):
            raise RelayError(FORBIDDEN, 403)

    def commands(self, cmd: str | None) -> frozenset[str] | None:
        """Return the commands it may take tasks of; None for all.

        Args:
            cmd: The only one it asks for.

        Raises:
            RelayError: that one is outside its limits, or they have a `*` and it asks for all.
        """
        if cmd is not None:
            self.check_names(cmd=cmd)
            return frozenset((cmd,))
        if any(limit.endswith("*") for limit in self.cmd):
            raise RelayError(FORBIDDEN, 403)
        return frozenset(self.cmd) or None


ANONYMOUS: Final = Caller("anonymous", frozenset())


def _within(limits: Sequence[str], name: str) -> bool:
    if not limits:
        return True
    return any(
        name.startswith(limit[:-1]) if limit.endswith("*") else name == limit for limit in limits
    )


class Keys:
    """All keys that are accepted."""

    def __init__(self, entries: Iterable[KeySettings], *, default_key: bool) -> None:
        self._known: list[tuple[bytes, Caller]] = []
        self._secrets: dict[str, bytes] = {}
        for entry in entries:
            caller = Caller(
                entry.name, frozenset(entry.scopes), entry.from_, entry.to, entry.cmd
            )  # fmt: skip
            secret = entry.callback_secret or entry.key
            self._add(entry.key.reveal(), caller, secret.reveal())
        if default_key:
            self._add(DEFAULT_KEY, Caller("(shipped key)", frozenset(ALL_SCOPES)), DEFAULT_KEY)

    def _add(self, key: str, caller: Caller, secret: str) -> None:
        self._known.append((_hash(key.encode()), caller))
        self._secrets.setdefault(caller.name, secret.encode())

    @classmethod
    def of(cls, settings: RelaySettings, *, loopback: bool) -> Keys:
        """Return the keys of a configuration.

        Args:
            loopback: Whether the hub's own port is reachable from this machine only.
        """
        local = loopback and all(is_loopback(address.host) for address in settings.listen)
        return cls(settings.api_keys, default_key=local or settings.allow_default_key)

    def find(self, key: bytes) -> Caller | None:
        """Return whose key this is; None when it is nobody's."""
        given = _hash(key)
        found: Caller | None = None
        for known, caller in self._known:
            if hmac.compare_digest(known, given) and found is None:
                found = caller
        return found

    def secret_of(self, name: str) -> bytes | None:
        """Return what signs callbacks of a key's tasks; None when that key is gone."""
        return self._secrets.get(name)


def _hash(key: bytes) -> bytes:
    return sha256(key).digest()


def is_loopback(host: str) -> bool:
    """Tell whether a listener's host is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def caller_of_token(principal: Principal) -> Caller:
    """Return what the owner of a hub's API token may do here.

    One that has to do with some task types only has these commands for its limit.
    """
    scopes = set(principal.scopes & {"read", "admin"})
    types = task_types_of(principal) if works(principal) else frozenset[str]()
    if types is None:
        return Caller(principal.source, frozenset(scopes.union(ALL_SCOPES)), signs=False)
    # A `*` at the end would be a prefix here, where in the token it is part of a name.
    cmd = tuple(sorted(each for each in types if each and not each.endswith("*")))
    if cmd:
        scopes.update(("send", "callback", "work"))
    return Caller(principal.source, frozenset(scopes), cmd=cmd, signs=False)
