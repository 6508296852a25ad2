"""The gate: who gets an address, and who comes in with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

import structlog

from hubbub import Hub
from hubbub.errors import HubError, InvalidError, RateLimitedError, StoreUnavailableError
from hubbub.web import parse_query
from hubbub_octohub.config import SECRET_BYTES, SHIPPED_API_KEY, SHIPPED_WS_KEY, OctohubSettings
from hubbub_octohub.remembered import Once, keep_once, known_once, use_all
from hubbub_octohub.signatures import (
    REMEMBERED,
    Addresses,
    FlapGuard,
    Kind,
    Nonces,
    Recent,
    SignatureError,
    address_signature,
    check_address,
    check_request,
    derived_key,
)

__all__ = ["Gate", "ShippedKeyError", "check_keys", "first_of"]

MAX_ID: Final = 128
"""Characters of a `pc_id` or `user_id`."""

PATHS: Final[Mapping[Kind, str]] = {"node": "/ws/node", "user": "/ws/user"}
PARAMETERS: Final[Mapping[Kind, str]] = {"node": "pc_id", "user": "user_id"}

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ShippedKeyError(HubError):
    """A key that everybody knows is used where everybody can come."""

    code = "octohub_shipped_key"

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"adapters.octohub.{setting} is the key that the original ships with, and other "
            "machines reach this hub; set one of your own (`openssl rand -hex 32`), or "
            "adapters.octohub.allow_default_keys = true"
        )


class ShortSecretError(HubError):
    """Logins are signed with what can be guessed, and everybody can come."""

    code = "octohub_short_secret"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"adapters.octohub.jwt_secret has {size} bytes, and other machines reach this hub; "
            f"give it {SECRET_BYTES} or more (`openssl rand -hex 32`)"
        )


def check_keys(settings: OctohubSettings, *, loopback: bool) -> None:
    """Check that what is weak stays on this machine.

    Raises:
        ShippedKeyError: a shipped key would not.
        ShortSecretError: the secret of logins would not.
    """
    if loopback:
        return
    size = len(settings.jwt_secret.reveal().encode())
    if 0 < size < SECRET_BYTES:
        raise ShortSecretError(size)
    if settings.allow_default_keys:
        return
    if settings.signature_key.reveal() in ("", SHIPPED_API_KEY):
        raise ShippedKeyError("signature_key")
    if settings.ws_signature_key.reveal() in ("", SHIPPED_WS_KEY):
        raise ShippedKeyError("ws_signature_key")


def first_of(query: bytes) -> dict[str, str]:
    """Return the parameters of a query; of one that is there twice, the first.

    Raises:
        InvalidError: there are far too many.
        MalformedError: one cannot be decoded.
    """
    return dict(reversed(parse_query(query)))


class Gate:
    """Gives out addresses and checks them. What everybody can sign is good in local requests only.

    Attributes:
        has_shipped_key: Whether one of its two keys is known to everybody.
    """

    def __init__(self, hub: Hub, settings: OctohubSettings) -> None:
        self._hub = hub
        self._settings = settings
        self.change_keys(settings)
        self._nonces = Nonces(settings.signature_window)
        self._addresses = Addresses(settings.signature_window)
        self._logins: Recent[tuple[str, int], int] = Recent(
            2 * settings.signature_window, REMEMBERED
        )
        self._gone: Recent[str, float] = Recent(2 * settings.signature_window, REMEMBERED)
        self.flaps: Final = FlapGuard(settings.flap_limit, settings.flap_window)

    def change_keys(self, settings: OctohubSettings) -> None:
        """Go by the keys of these settings from here on."""
        self._settings = settings
        self._shipped = {
            "signature_key": settings.signature_key.reveal() in ("", SHIPPED_API_KEY),
            "ws_signature_key": settings.ws_signature_key.reveal() in ("", SHIPPED_WS_KEY),
        }
        self.has_shipped_key = any(self._shipped.values())
        self._key = settings.signature_key.reveal().encode()
        ws_key, split = settings.ws_signature_key.reveal().encode(), settings.split_keys
        self._keys: dict[Kind, bytes] = {
            "node": derived_key(ws_key, "node", split=split),
            "user": derived_key(ws_key, "user", split=split),
        }

    @property
    def now_s(self) -> float:
        """Unix time in seconds."""
        return self._hub.clock.now_us() / 1e6

    def _check_key(self, setting: str, *, local: bool) -> None:
        """Check that a signature proves anything.

        Raises:
            SignatureError: everybody has the key, and the request is not local.
        """
        if self._shipped[setting] and not (local or self._settings.allow_default_keys):
            log.info(
                "octohub.shipped_key_refused",
                setting=f"adapters.octohub.{setting}",
                mend="set a key of your own; the shipped one holds for local requests only",
            )
            raise SignatureError

    async def load(self) -> None:
        """Read what was used before a restart and would still be good."""
        after_us = self._hub.clock.now_us() - int(2 * self._settings.signature_window * 1e6)
        known = await self._hub.read(lambda session: known_once(session, after_us=after_us))
        for once in known:
            at_s = once.at_us / 1e6
            match once.kind:
                case "node" | "user" as kind:
                    restore = self._addresses.restore
                    restore(kind, once.name, once.time_s, used=once.used, at_s=at_s)
                case _:
                    self._nonces.restore(bytes.fromhex(once.name), at_s=at_s)

    async def _remember(self, kind: str, name: str, *, time_s: int = 0, used: bool) -> None:
        """Keep what was used over a restart; without a store it holds until then only."""
        once = Once(kind, name, time_s, used, self._hub.clock.now_us())
        try:
            await self._hub.execute(*keep_once(once))
        except StoreUnavailableError as error:
            log.warning("octohub.not_remembered", kind=kind, error=str(error))

    async def check_request(
        self,
        *,
        method: str,
        paths: Sequence[str],
        query: bytes,
        headers: Mapping[str, str],
        local: bool,
    ) -> str:
        """Check a node's request for its address; returns its id, which may be empty.

        Args:
            local: Whether the request is local (`hubbub.web.is_local`).
            paths: The path as it was received, and without the prefix in front.
            headers: By names in lower case.

        Raises:
            SignatureError: it is not good, or was used before.
            InvalidError: there are far too many parameters.
            MalformedError: one cannot be decoded.
        """
        self._check_key("signature_key", local=local)
        params = parse_query(query)
        pc_id = dict(reversed(params)).get("pc_id", "")
        nonce = headers.get("x-nonce", "")
        check_request(
            self._key,
            method=method,
            paths=paths,
            params=params,
            timestamp=headers.get("x-timestamp", ""),
            nonce=nonce,
            signature=headers.get("x-signature", ""),
            now_s=self.now_s,
            window_s=self._settings.signature_window,
        )
        if self._settings.nonce_cache:
            used = self._nonces.use(pc_id, nonce, now_s=self.now_s)
            await self._remember("nonce", used.hex(), used=True)
        return pc_id

    async def address(
        self, kind: Kind, identity: str, *, base: str, expires_us: int | None = None
    ) -> str:
        """Return a signed WebSocket address.

        Args:
            expires_us: When the login ends with which it is asked for.
            base: Where the hub was asked, `ws://host:port`, for when nothing else is set.

        Raises:
            InvalidError: no id that can be one.
            RateLimitedError: the id is taken over too often, or asks too often.
        """
        check_id(identity)
        now_s = self.now_s
        left_s = self.flaps.seconds_left(identity, now_s=now_s) if kind == "node" else 0
        if left_s:
            raise RateLimitedError(
                what="taking over this pc_id", after_s=left_s, setting="adapters.octohub.flap_limit"
            )
        time_s = int(now_s)
        if self._settings.one_time_urls:
            time_s = self._addresses.give(kind, identity, now_s=now_s)
            await self._remember(kind, identity, time_s=time_s, used=False)
        if expires_us is not None:
            given = (identity, time_s)
            earlier_us = self._logins.get(given, now_s=now_s)
            self._logins.put(given, min(earlier_us or expires_us, expires_us), now_s=now_s)
        query = {
            PARAMETERS[kind]: identity,
            "timestamp": time_s,
            "signature": address_signature(self._keys[kind], identity, time_s),
        }
        return f"{self._settings.public_ws_url or base}{PATHS[kind]}?{urlencode(query)}"

    async def enter(self, kind: Kind, query: Mapping[str, str], *, local: bool) -> tuple[str, int]:
        """Check the address that somebody connects to; returns the id, and the time of it.

        Args:
            local: Whether the handshake is local (`hubbub.web.is_local`).

        Raises:
            InvalidError: a parameter is missing, or the id can be none.
            SignatureError: it is not good, or was used before.
        """
        identity = query.get(PARAMETERS[kind], "")
        timestamp, signature = query.get("timestamp", ""), query.get("signature", "")
        if not (identity and timestamp and signature):
            raise InvalidError("缺少必要参数")
        self._check_key("ws_signature_key", local=local)
        time_s = check_address(
            self._keys[kind],
            identity=identity,
            timestamp=timestamp,
            signature=signature,
            now_s=self.now_s,
            window_s=self._settings.signature_window,
        )
        check_id(identity)
        if self._settings.one_time_urls and self._addresses.use(
            kind, identity, time_s, now_s=self.now_s
        ):
            await self._remember(kind, identity, time_s=time_s, used=True)
        return identity, time_s

    def login_of(self, identity: str, time_s: int) -> int | None:
        """Return when the login ends with which a user asked for an address.

        Where it is not known, because the hub was restarted since or another server has signed the
        address, it is as if the user had logged in just then.

        Raises:
            SignatureError: that user is gone, or the login is over.
        """
        gone_s = self._gone.get(identity, now_s=self.now_s)
        known_us = self._logins.get((identity, time_s), now_s=self.now_s)
        expires_us = known_us or int((time_s + self._settings.jwt_ttl) * 1e6)
        if (gone_s is not None and time_s <= gone_s) or expires_us <= self._hub.clock.now_us():
            raise SignatureError
        return expires_us

    async def user_gone(self, identity: str) -> None:
        """Let nobody in by an address that a user had asked for who is gone now."""
        last = self._addresses.last_of("user", identity, now_s=self.now_s)
        self._gone.put(identity, max(last or 0, self.now_s), now_s=self.now_s)
        try:
            await self._hub.execute(*use_all("user", identity))
        except StoreUnavailableError as error:
            log.warning("octohub.not_remembered", kind="user", error=str(error))


def check_id(identity: str) -> None:
    """Check that an id can be one.

    Raises:
        InvalidError: empty, too long, or with a sign that cannot be shown.
    """
    if not 1 <= len(identity) <= MAX_ID or not identity.isprintable():
        raise InvalidError(f"an id has 1 to {MAX_ID} signs that can be shown")
