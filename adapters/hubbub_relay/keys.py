"""Who calls, and what that caller may do. Keys are compared as hashes, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from hubbub.values import Principal
from hubbub_relay.config import ALL_SCOPES, KeySettings
from hubbub_relay.wire import FORBIDDEN, RelayError

__all__ = ["ANONYMOUS", "DEFAULT_KEY", "Caller", "Keys", "caller_of_token"]

DEFAULT_KEY: Final = "lynker_relay_secret_2025"
"""The key that is built into the original's own clients."""

_SHIPPED: Final = DEFAULT_KEY.encode()


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
    """All keys that are accepted.

    The shipped key, which everybody knows, is taken where there is no other, and also where an
    entry repeats it; in both cases from local requests only, unless it is allowed.

    Attributes:
        takes_shipped_key: Whether it is taken at all.
        allows_shipped_key: Whether it is taken from everybody.
    """

    def __init__(self, entries: Sequence[KeySettings], *, allow_default_key: bool) -> None:
        self.allows_shipped_key: Final = allow_default_key
        self._known: list[tuple[bytes, Caller]] = []
        self._secrets: dict[str, bytes] = {}
        for entry in entries:
            caller = Caller(
                entry.name, frozenset(entry.scopes), entry.from_, entry.to, entry.cmd
            )  # fmt: skip
            secret = entry.callback_secret or entry.key
            self._add(entry.key.reveal(), caller, secret.reveal())
        if allow_default_key or not entries:
            self._add(DEFAULT_KEY, Caller("(shipped key)", frozenset(ALL_SCOPES)), DEFAULT_KEY)

        self.takes_shipped_key: Final = self._matching(DEFAULT_KEY.encode()) is not None

    def _add(self, key: str, caller: Caller, secret: str) -> None:
        self._known.append((_hash(key.encode()), caller))
        self._secrets.setdefault(caller.name, secret.encode())

    def find(self, key: bytes, *, local: bool) -> Caller | None:
        """Return whose key this is; None when it is nobody's.

        Args:
            local: Whether it came with a local request (`hubbub.web.is_local`).
        """
        if not (local or self.allows_shipped_key) and hmac.compare_digest(key, _SHIPPED):
            return None
        return self._matching(key)

    def _matching(self, key: bytes) -> Caller | None:
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


def caller_of_token(principal: Principal) -> Caller:
    """Return what the owner of a hub's API token may do here."""
    scopes: set[str] = set()
    if "tasks" in principal.scopes:
        scopes.update(ALL_SCOPES)
    scopes.update(principal.scopes & {"read", "admin"})
    return Caller(principal.source, frozenset(scopes), signs=False)
