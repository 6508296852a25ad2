"""Both signatures of OctoHub, and what is remembered so that none is worth anything twice.

Asking for an address is signed in Base64, the address itself in hex, each with a key of its own.
Nothing here knows a clock: `now_s` is Unix time in seconds.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from hashlib import blake2b, sha256
from typing import Final, Generic, Literal, TypeVar

from hubbub.errors import HubError, RateLimitedError

__all__ = [
    "REMEMBERED",
    "Addresses",
    "FlapGuard",
    "Kind",
    "Nonces",
    "Recent",
    "SignatureError",
    "address_signature",
    "check_address",
    "check_request",
    "derived_key",
    "request_signature",
    "signed_text",
]

Kind = Literal["node", "user"]

REMEMBERED: Final = 100_000
"""Nonces, and addresses, that are remembered at once; then the oldest is forgotten."""

TIMESTAMP_DIGITS: Final = 10
"""Digits of the time in an address, exactly: id and time are signed without a sign between."""

MAX_TIMESTAMP_DIGITS: Final = 12
"""Digits of `X-Timestamp`, at most."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SignatureError(HubError):
    """A signature, or the time it was made at, is not good. It is not said which."""

    code = "octohub_signature"

    def __init__(self) -> None:
        super().__init__(
            "the signature is not valid; compare the key, and the clocks of both machines"
        )


# Asking for an address


def signed_text(
    method: str, path: str, params: Iterable[tuple[str, str]], timestamp: str, nonce: str
) -> str:
    """Return what a request for an address signs: `METHOD&PATH&PARAMS&TIMESTAMP&NONCE`.

    Args:
        path: As it was sent, without query.
        params: Decoded; of a key that stands there twice the first one counts.

    Source: protocol page, 1.2.
    """
    first: dict[str, str] = {}
    for name, value in params:
        first.setdefault(name, value)
    said = "&".join(f"{name}={first[name]}" for name in sorted(first))
    return f"{method.upper()}&{path}&{said}&{timestamp}&{nonce}"


def request_signature(key: bytes, text: str) -> str:
    """Return HMAC-SHA256 in Base64."""
    return b64encode(_hmac(key, text)).decode()


def check_request(  # noqa: PLR0913  # all that is signed, and two that judge it
    key: bytes,
    *,
    method: str,
    paths: Iterable[str],
    params: Iterable[tuple[str, str]],
    timestamp: str,
    nonce: str,
    signature: str,
    now_s: float,
    window_s: float,
) -> None:
    """Check a signed request for an address.

    Args:
        paths: The path as it was received, and others it may have been signed as.

    Raises:
        SignatureError: a header is missing, the time is not inside the window, or the signature
            is not that of any of the paths.
    """
    if not (timestamp and nonce and signature):
        raise SignatureError
    if not _is_number(timestamp, MAX_TIMESTAMP_DIGITS):
        raise SignatureError
    known = list(params)
    good = False
    for path in paths:
        expected = request_signature(key, signed_text(method, path, known, timestamp, nonce))
        good |= _same(expected, signature)
    if not good or abs(now_s - int(timestamp)) > window_s:
        raise SignatureError


# The address


def derived_key(key: bytes, kind: Kind, *, split: bool) -> bytes:
    """Return what signs the addresses of nodes, or of users."""
    return _hmac(key, kind).hex().encode() if split else key


def address_signature(key: bytes, identity: str, timestamp: int | str) -> str:
    """Return HMAC-SHA256 of id and time in lower-case hex.

    Source: protocol page, 2.1.
    """
    return _hmac(key, f"{identity}{timestamp}").hex()


def check_address(
    key: bytes,
    *,
    identity: str,
    timestamp: str,
    signature: str,
    now_s: float,
    window_s: float,
) -> int:
    """Check a WebSocket address and return its time.

    Raises:
        SignatureError: the time is not of ten digits or not inside the window, on either side,
            or the signature is not that of id and time.
    """
    good = _same(address_signature(key, identity, timestamp), signature)
    ten = len(timestamp) == TIMESTAMP_DIGITS and _is_number(timestamp, TIMESTAMP_DIGITS)
    if not (good and ten) or abs(now_s - int(timestamp)) > window_s:
        raise SignatureError
    return int(timestamp)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), sha256)


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits


# What is remembered


class Recent(Generic[K, V]):
    """A dictionary that forgets what is older than `keep_s`, and the oldest when it is full."""

    def __init__(self, keep_s: float, limit: int) -> None:
        self._keep_s = keep_s
        self._limit = limit
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, *, now_s: float) -> V | None:
        """Return what is kept of a key; None for nothing."""
        self._forget(now_s)
        found = self._kept.get(key)
        return None if found is None else found[1]

    def put(self, key: K, value: V, *, now_s: float) -> None:
        """Keep something, in the place of what was kept of this key."""
        self._forget(now_s)
        if key not in self._kept and len(self._kept) >= self._limit:
            self._kept.popitem(last=False)
        self._kept[key] = (now_s, value)
        self._kept.move_to_end(key)

    def _forget(self, now_s: float) -> None:
        while self._kept:
            oldest = next(iter(self._kept))
            if now_s - self._kept[oldest][0] <= self._keep_s:
                return
            del self._kept[oldest]


class Nonces:
    """Nonces that were used, as hashes; kept for as long as their request could be good."""

    def __init__(self, window_s: float, *, limit: int = REMEMBERED) -> None:
        self._used: Recent[bytes, bool] = Recent(2 * window_s, limit)

    def __len__(self) -> int:
        return len(self._used)

    def use(self, identity: str, nonce: str, *, now_s: float) -> bytes:
        """Note a nonce; returns what is remembered of it.

        Raises:
            SignatureError: this id has used it before.
        """
        said = f"{len(identity)}:{identity}{nonce}".encode("utf-8", "surrogatepass")
        name = blake2b(said, digest_size=16).digest()
        if self._used.get(name, now_s=now_s):
            raise SignatureError
        self._used.put(name, True, now_s=now_s)
        return name

    def restore(self, name: bytes, *, at_s: float) -> None:
        """Remember what `use` returned before a restart; the earliest first."""
        self._used.put(name, True, now_s=at_s)


class Addresses:
    """Addresses that were given out; each may be used once.

    Since their time is in whole seconds, an id never gets the same second twice: it gets the next
    one that is free, as long as that is inside the window.
    """

    def __init__(self, window_s: float, *, limit: int = REMEMBERED) -> None:
        self._window_s = window_s
        self._last: Recent[tuple[Kind, str], int] = Recent(2 * window_s, limit)
        self._used: Recent[tuple[Kind, str, int], bool] = Recent(2 * window_s, limit)

    def give(self, kind: Kind, identity: str, *, now_s: float) -> int:
        """Return the time that the next address of an id is signed with.

        Raises:
            RateLimitedError: it has had an address for every second of the window.
        """
        last = self._last.get((kind, identity), now_s=now_s)
        time_s = int(now_s) if last is None else max(int(now_s), last + 1)
        if time_s - now_s > self._window_s:
            raise RateLimitedError(
                what=f"asking for addresses of {identity[:64]!r}",
                after_s=time_s - now_s - self._window_s,
                setting="adapters.octohub.signature_window",
            )
        self._last.put((kind, identity), time_s, now_s=now_s)
        self._used.put((kind, identity, time_s), False, now_s=now_s)
        return time_s

    def last_of(self, kind: Kind, identity: str, *, now_s: float) -> int | None:
        """Return the time of the newest address that an id was given; None for none."""
        return self._last.get((kind, identity), now_s=now_s)

    def use(self, kind: Kind, identity: str, time_s: int, *, now_s: float) -> bool:
        """Note that somebody came with an address; one that was signed elsewhere is let pass.

        Returns:
            Whether it was given out here.

        Raises:
            SignatureError: somebody has come with it before.
        """
        used = self._used.get((kind, identity, time_s), now_s=now_s)
        if used is None:
            return False
        if used:
            raise SignatureError
        self._used.put((kind, identity, time_s), True, now_s=now_s)
        return True

    def restore(
        self, kind: Kind, identity: str, time_s: int, *, used: bool, at_s: float
    ) -> None:  # fmt: skip
        """Remember an address that was given out before a restart; the earliest first."""
        last = self._last.get((kind, identity), now_s=at_s)
        self._last.put((kind, identity), max(last or 0, time_s), now_s=at_s)
        self._used.put((kind, identity, time_s), used, now_s=at_s)


class FlapGuard:
    """Two processes with one id push each other out for ever; after some times neither gets in."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._replaced: dict[str, deque[float]] = {}
        self._until: dict[str, float] = {}

    def replaced(self, identity: str, *, now_s: float) -> None:
        """Note that a newer connection of an id has taken the place of an older one."""
        self._forget(now_s)
        times = self._replaced.pop(identity, None) or deque()
        self._replaced[identity] = times  # at the end: whoever was quiet longest stands first
        times.append(now_s)
        while now_s - times[0] > self._window_s:
            times.popleft()
        if len(times) > self._limit:
            self._until.pop(identity, None)
            self._until[identity] = now_s + self._window_s

    def seconds_left(self, identity: str, *, now_s: float) -> float:
        """Return for how long an id gets no address; 0 when it does."""
        return max(0.0, self._until.get(identity, 0.0) - now_s)

    def _forget(self, now_s: float) -> None:
        while self._replaced:
            identity = next(iter(self._replaced))
            if now_s - self._replaced[identity][-1] <= self._window_s:
                break
            del self._replaced[identity]
        while self._until:
            identity = next(iter(self._until))
            if self._until[identity] > now_s:
                break
            del self._until[identity]
