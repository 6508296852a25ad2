"""Users who may log in: their passwords as argon2 hashes, their logins as signed tokens (JWT)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import jwt
import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hubbub import Hub
from hubbub.errors import (
    ConflictError,
    HubError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
)
from hubbub.failure_guards import PasswordGuard
from hubbub_octohub import records
from hubbub_octohub.config import SECRET_BYTES
from hubbub_octohub.records import User

__all__ = ["MIN_PASSWORD", "Accounts", "Login", "check_email", "check_password", "is_jwt"]

MIN_PASSWORD: Final = 8
"""Characters of a new password, at least."""

MAX_PASSWORD: Final = 1024
"""Characters of a password, at most: each of them costs time."""

MAX_EMAIL: Final = 254

ID_DIGITS: Final = 18
"""Of the id of a user, at most: what a database can look for."""

HASHING: Final = 4
"""Passwords that are looked at at once; each takes 64 MiB for a moment."""

MAX_WAITING: Final = 64
"""Logins that may wait for that."""

BCRYPT: Final = ("$2a$", "$2b$", "$2y$")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def check_email(email: str) -> str:
    """Return an email address in lower case.

    Raises:
        InvalidError: it has no `@` between signs, is too long, or has a blank.
    """
    name, at, domain = email.strip().lower().rpartition("@")
    known = f"{name}@{domain}"
    if not (name and at and domain) or len(known) > MAX_EMAIL or not known.isprintable():
        raise InvalidError(f"{email[:64]!r} is no email address")
    if " " in known:
        raise InvalidError(f"{email[:64]!r} is no email address")
    return known


def check_password(password: str) -> str:
    """Return a password that may be set.

    Raises:
        InvalidError: too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


def is_jwt(token: str) -> bool:
    """Tell whether a token may be a login; those of the hub have no dots."""
    return token.count(".") == 2  # noqa: PLR2004  # three parts


def _key_of(secret: str) -> str:
    """Return the key that signs tokens; a short secret, good on loopback only, is made longer."""
    whole = len(secret.encode()) >= SECRET_BYTES
    return secret if whole else sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Login:
    """A user who is logged in, and until when."""

    user: User
    expires_us: int


class Accounts:
    """Logs users in, and knows them again."""

    def __init__(
        self,
        hub: Hub,
        *,
        secret: str,
        ttl_s: float,
        guard: PasswordGuard,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._hub = hub
        self._guard = guard
        self._secret = _key_of(secret) if secret else secrets.token_hex(SECRET_BYTES)
        self._ttl_s = ttl_s
        self._hasher = hasher or PasswordHasher()
        # Looked at where nobody has the address, so that an answer does not tell who has one.
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._room = asyncio.Semaphore(HASHING)
        self._waiting = 0
        self._adding = asyncio.Lock()

    # Logins

    async def log_in(self, email: str, password: str, *, peer: str | None) -> tuple[User, str]:
        """Return a user and a token for it.

        Args:
            peer: Address that the login came from.

        Raises:
            UnauthorizedError: nobody has this address with this password.
            TooManyFailuresError: too many were tried; the password was not looked at.
            RateLimitedError: too many want to log in.
        """
        email = email.lower()  # as it is looked for: what is limited is the user, however written
        self._guard.check(email, peer)
        user = None
        if "\0" not in email:  # which no database holds, and PostgreSQL refuses to look for
            user = await self._hub.read(lambda session: records.user_by_email(session, email))
        stored = self._nobody if user is None else user.password
        async with self._hashing():
            attempt = self._guard.attempt(email, peer)  # others may have failed while this waited
            good = await asyncio.to_thread(self._is, stored, password)
        if user is None or not good:
            attempt.failed()
            raise UnauthorizedError("no user has this email address with this password")
        attempt.succeeded()
        if stored.startswith(BCRYPT) or self._hasher.check_needs_rehash(stored):
            hashed = await self._hash(password)
            now_us = self._hub.clock.now_us()
            await self._hub.execute(records.new_password(user.id, hashed, now_us=now_us))
        return user, self.token(user.id)

    def token(self, number: int) -> str:
        """Return a token for a user."""
        now_s = self._hub.clock.now_us() // 1_000_000
        claims = {"sub": str(number), "iat": now_s, "exp": now_s + int(self._ttl_s)}
        return jwt.encode(claims, self._secret, algorithm="HS256")  # pyright: ignore[reportUnknownMemberType]

    async def user(self, token: str, *, peer: str | None) -> User:
        """Return whose token this is (`login`)."""
        return (await self.login(token, peer=peer)).user

    async def login(self, token: str, *, peer: str | None) -> Login:
        """Return whose token this is, and until when.

        Args:
            peer: Address that it came from; its user may log in from there, whoever else tries.

        Raises:
            UnauthorizedError: it is not good, is over, or its user is gone.
            TooManyFailuresError: the same, after too many of these from its source.
        """
        try:
            number, since_s, until_s = self._claims(token)
            user = await self._hub.read(lambda session: records.user_by_id(session, number))
            # The number of a user who is gone may be given again: such a login is older.
            if user is None or since_s < user.created_us // 1_000_000:
                raise UnauthorizedError("this user is gone")  # noqa: TRY301  # counted as the others
            self._check_over(until_s)
        except UnauthorizedError:
            if token:
                self._hub.auth_failures.failed("octohub_login", peer)
            raise
        self._guard.remember(user.email, peer)
        return Login(user, int(until_s * 1e6))

    def change_secret(self, secret: str) -> None:
        """Sign with another secret from here on; logins so far hold no more."""
        self._secret = _key_of(secret) if secret else secrets.token_hex(SECRET_BYTES)

    def _claims(self, token: str) -> tuple[int, float, float]:
        """Return whose a token is, and from when until when it holds, in Unix seconds."""
        options: Any = {"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(  # pyright: ignore[reportUnknownMemberType]
                token, self._secret, algorithms=["HS256"], options=options
            )
            number = int(claims["sub"])
            until_s = float(claims["exp"])
            since_s = float(claims.get("iat", until_s))
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise UnauthorizedError("this login is not valid; log in again") from error
        self._check_over(until_s)
        return number, since_s, until_s

    def _check_over(self, until_s: float) -> None:
        if not self._hub.clock.now_us() / 1e6 < until_s:  # by the hub's clock, not the library's
            raise UnauthorizedError("this login is over; log in again")

    def _is(self, stored: str, password: str) -> bool:
        if len(password) > MAX_PASSWORD:
            return False
        if stored.startswith(BCRYPT):
            return _is_bcrypt(stored, password)
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _hash(self, password: str) -> str:
        async with self._hashing():
            return await asyncio.to_thread(self._hasher.hash, password)

    @asynccontextmanager
    async def _hashing(self) -> AsyncGenerator[None]:
        """Wait for a place to look at a password in: not too many at once.

        Raises:
            RateLimitedError: too many wait.
        """
        if self._waiting >= MAX_WAITING:
            raise RateLimitedError(
                what="logging in", after_s=1.0, setting="the number of processors"
            )
        self._waiting += 1
        try:
            async with self._room:
                yield
        finally:
            self._waiting -= 1

    # Who is known

    async def create(self, email: str, password: str) -> User:
        """Add a user.

        Raises:
            InvalidError: no email address, or no password that may be set.
            ConflictError: somebody has this address.
        """
        email = check_email(email)
        check_password(password)
        hashed = await self._hash(password)
        async with self._adding:
            if await self._hub.read(lambda session: records.user_by_email(session, email)):
                raise ConflictError(f"there is a user {email!r} already")
            now_us = self._hub.clock.now_us()
            await self._hub.execute(records.add_user(email, hashed, now_us=now_us))
        user = await self._hub.read(lambda session: records.user_by_email(session, email))
        if user is None:
            raise HubError(f"user {email!r} was added and is not there")
        return user

    async def listed(self, *, after: int, limit: int) -> Sequence[User]:
        """Return users in the order of their ids."""
        return await self._hub.read(
            lambda session: records.all_users(session, after=after, limit=limit)
        )

    async def delete(self, name: str) -> User:
        """Remove a user, by id or email address; logins of it end at once.

        Raises:
            NotFoundError: there is none.
        """
        by_id = name.isascii() and name.isdigit() and len(name) <= ID_DIGITS
        user = await self._hub.read(
            lambda session: (
                records.user_by_id(session, int(name))
                if by_id
                else records.user_by_email(session, name)
            )
        )
        if user is None:
            raise NotFoundError(f"no user {name[:64]!r}")
        await self._hub.execute(records.forget_user(user.id))
        return user


def _is_bcrypt(stored: str, password: str) -> bool:
    """Check a hash that came from the original's database; needs the extra `bcrypt`."""
    try:
        import bcrypt  # noqa: PLC0415  # optional
    except ImportError:
        log.warning("octohub.no_bcrypt", hint="pip install 'hubbub[bcrypt]'")
        return False
    try:
        return bcrypt.checkpw(password.encode()[:72], stored.encode())
    except ValueError:
        return False
