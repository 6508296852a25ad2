"""Who calls, and what that caller may do. Keys are compared as hashes, in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final

from hubbub.ports import Credentials
from hubbub.rights import task_types_of, works
from hubbub.values import Principal
from hubbub_relay.config import ALL_SCOPES, KeySettings
from hubbub_relay.wire import FORBIDDEN, RelayError

__all__ = ["ANONYMOUS", "DEFAULT_KEY", "Caller", "Keys", "caller_of_token"]

DEFAULT_KEY: Final = "lynker_relay_secret_2025"
"""The key that is built into the original's own clients."""

_SHIPPED: Final = DEFAULT_KEY.encode()


SHIPPED: Final = "(shipped key)"

_numbers: Final = count(1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key or a token.

    Attributes:
        speaks_as: Names it may use in `from`; empty for all. So with the next two.
        signs: There is a secret that signs what is posted for it.
        credential: What it came with, as the hub knows it: the id of its token, or of its key.
    """

    name: str
    scopes: frozenset[str]
    speaks_as: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    signs: bool = True
    credential: str = ""

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
        if not self.limited:
            return
        limits = ((self.speaks_as, sender), (self.to, to), (self.cmd, cmd))
        if not all(name is None or _within(limit, name) for limit, name in limits):
            raise RelayError(FORBIDDEN, 403)

    @property
    def limited(self) -> bool:
        """Whether it may not use every name and command."""
        return bool(self.speaks_as or self.to or self.cmd)

    def may_touch(self, names: Iterable[str], cmd: str) -> bool:
        """Tell whether a task is within its limits.

        Args:
            names: Names the task was sent to, and the one that has it.
        """
        named = not self.to or any(_within(self.to, name) for name in names)
        return named and _within(self.cmd, cmd)

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


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """What hub.toml says of the keys of one name, and their id."""

    entries: list[KeySettings]
    credential: str


class Keys:
    """All keys that are accepted.

    The shipped key, which everybody knows, is taken where there is no other, and also where an
    entry repeats it; in both cases from local requests only, unless it is allowed.

    Attributes:
        allows_shipped_key: Whether it is taken from everybody.
    """

    def __init__(
        self,
        entries: Sequence[KeySettings],
        *,
        allow_default_key: bool,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials
        self._named: dict[str, _Named] = {}
        self.allows_shipped_key = False
        self._known: list[tuple[bytes, Caller]] = []
        self._secrets: dict[str, bytes] = {}
        self.change(entries, allow_default_key=allow_default_key)

    def change(self, entries: Sequence[KeySettings], *, allow_default_key: bool) -> None:
        """Accept these keys from here on; what was opened with one that is changed or gone ends."""
        by_name: dict[str, list[KeySettings]] = {}
        for entry in entries:
            by_name.setdefault(entry.name, []).append(entry)
        if allow_default_key or not entries:
            by_name[SHIPPED] = []
        if self.allows_shipped_key and not allow_default_key:  # it was taken from everybody
            self._forget(SHIPPED)
        self.allows_shipped_key = allow_default_key
        self._accept(by_name)

    def close(self) -> None:
        """Accept none any more."""
        self._accept({})

    @property
    def takes_shipped_key(self) -> bool:
        """Whether the shipped key is taken at all."""
        return self._matching(_SHIPPED) is not None

    def _accept(self, by_name: Mapping[str, list[KeySettings]]) -> None:
        before, self._named, self._known, self._secrets = self._named, {}, [], {}
        for name, group in by_name.items():
            was = before.get(name)
            same = was is not None and was.entries == group
            named = was if was is not None and same else _Named(group, _new_credential(name))
            self._named[name] = named
            if self._credentials is not None:
                self._credentials.admit(named.credential)
        for entry in (entry for group in by_name.values() for entry in group):
            caller = Caller(
                entry.name,
                frozenset(entry.scopes),
                entry.from_,
                entry.to,
                entry.cmd,
                credential=self._named[entry.name].credential,
            )
            secret = entry.callback_secret or entry.key
            self._add(entry.key.reveal(), caller, secret.reveal())
        if SHIPPED in by_name:
            credential = self._named[SHIPPED].credential
            caller = Caller(SHIPPED, frozenset(ALL_SCOPES), credential=credential)
            self._add(DEFAULT_KEY, caller, DEFAULT_KEY)
        for name, was in before.items():
            if self._named.get(name) is not was:
                self._revoke(was)

    def _forget(self, name: str) -> None:
        was = self._named.pop(name, None)
        if was is not None:
            self._revoke(was)

    def _revoke(self, named: _Named) -> None:
        if self._credentials is not None:
            self._credentials.revoke(named.credential, "removed")

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

    def named(self, name: str) -> list[Caller]:
        """Return who has a key of this name; two while a key is replaced."""
        return [caller for _, caller in self._known if caller.name == name]

    def secret_of(self, name: str) -> bytes | None:
        """Return what signs callbacks of a key's tasks; None when that key is gone."""
        return self._secrets.get(name)


def _new_credential(name: str) -> str:
    """Return an id of a key that no other key has had: names are used again."""
    return f"relay.key.{name}.{next(_numbers)}"


def _hash(key: bytes) -> bytes:
    return sha256(key).digest()


def caller_of_token(principal: Principal) -> Caller:
    """Return what the owner of a hub's API token may do here.

    One that has to do with some task types only has these commands for its limit.
    """
    scopes = set(principal.scopes & {"read", "admin"})
    types = task_types_of(principal) if works(principal) else frozenset[str]()
    cmd: tuple[str, ...] = ()
    if types is None:
        scopes.update(ALL_SCOPES)
    else:
        # A `*` at the end would be a prefix here, where in the token it is part of a name.
        cmd = tuple(sorted(each for each in types if each and not each.endswith("*")))
        if cmd:
            scopes.update(("send", "callback", "work"))
    return Caller(
        principal.source, frozenset(scopes), cmd=cmd, signs=False, credential=principal.id
    )
