"""API tokens: random, stored hashed, scoped, expiring, revocable."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import insert, update
from sqlmodel import Session, col, select

from hubbub.clock import Ids
from hubbub.errors import HubError, NotFoundError, UnauthorizedError
from hubbub.file_modes import is_open_to_all, make_folder, owner_of, write_text
from hubbub.intake import check_scope, check_text
from hubbub.ports import Clock, Credentials
from hubbub.store.database import Database
from hubbub.store.journal import Journal
from hubbub.store.tables import TokenRow
from hubbub.subjects import escape
from hubbub.values import Principal

__all__ = ["ADMIN", "ADMIN_FILE", "AdminTokenError", "Token", "Tokens"]

ADMIN: Final = "admin"
ADMIN_FILE: Final = "admin.token"
_BYTES: Final = 32

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; never the token itself."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_us: int
    expires_us: int | None
    revoked_us: int | None


class AdminTokenError(HubError):
    """The hub has no admin token: its file would not be safe where it is to lie."""

    code = "no_admin_token"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}; set HUBBUB_ADMIN_TOKEN (or HUBBUB_ADMIN_TOKEN_FILE) for the hub, or give it a "
            "data directory that is its own (`chmod o-rwx`, or another hub.data_dir), and start it "
            "again"
        )


def read_admin_file(path: Path) -> str:
    """Return the token in a file; empty where there is none.

    Raises:
        AdminTokenError: another user may have put it there, so it is no secret of the hub.
    """
    try:
        link = path.lstat()
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, encoding="utf-8") as file:
            status = os.fstat(opened)
            owners = {link.st_uid, status.st_uid} - {os.geteuid(), 0}
            plain = stat.S_ISREG(status.st_mode)
            if owners or not plain or status.st_mode & stat.S_IWOTH:
                by = "is no plain file" if not plain else "may have been written by another user"
                raise AdminTokenError(f"{path} {by} and is not used; remove it")
            return file.read().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise AdminTokenError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise AdminTokenError(f"{path} holds no token; remove it") from error


class Tokens:
    """Who may speak to the hub's own API.

    A token is 256 random bits, so one round of SHA-256 is hash enough: there is nothing to guess.
    """

    def __init__(
        self,
        database: Database,
        journal: Journal,
        clock: Clock,
        ids: Ids,
        credentials: Credentials,
    ) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._ids = ids
        self._credentials = credentials
        self._by_hash: dict[bytes, tuple[Token, Principal]] = {}

    def load(self) -> None:
        """Read all tokens that are not revoked."""
        query = select(TokenRow).where(col(TokenRow.revoked_us).is_(None))
        for row in self._database.read_now(lambda session: session.exec(query).all()):
            self._remember(row.hash, _token_of(row))

    def admin(self, data_dir: Path, environ: Mapping[str, str] = os.environ) -> str | None:
        """Let the administrator in.

        With `HUBBUB_ADMIN_TOKEN` (or `HUBBUB_ADMIN_TOKEN_FILE`) that one holds and no file is
        written. Else the token is kept in `<data_dir>/admin.token`, made at the first start.

        Returns:
            The token when it was made just now, to be shown once.

        Raises:
            AdminTokenError: none can be kept safely there, or what lies there is not the hub's;
                nobody is the administrator then.
        """
        given = environ.get("HUBBUB_ADMIN_TOKEN", "")
        named = environ.get("HUBBUB_ADMIN_TOKEN_FILE", "")
        if not given and named:
            given = Path(named).read_text(encoding="utf-8").strip()
        if given:
            self._remember_admin(given)
            return None
        path = data_dir / ADMIN_FILE
        if kept := read_admin_file(path):
            self._remember_admin(kept)
            return None
        make_folder(data_dir)
        if is_open_to_all(data_dir):
            raise AdminTokenError(
                f"no admin token was written: every user of this machine may enter {data_dir}, "
                f"which belongs to user {owner_of(data_dir)}"
            )
        token = secrets.token_urlsafe(_BYTES)
        write_text(path, token + "\n")
        self._remember_admin(token)
        return token

    def authenticate(self, token: str) -> Principal:
        """Return who a token belongs to.

        Raises:
            UnauthorizedError: unknown, expired or revoked.
        """
        wanted = _hash(token)
        found = self._by_hash.get(wanted)
        if found is None or not hmac.compare_digest(_hash(token), wanted):
            raise UnauthorizedError("this token is not known here; `hubbub token create` makes one")
        known, principal = found
        if known.expires_us is not None and known.expires_us <= self._clock.now_us():
            raise UnauthorizedError("this token has expired; `hubbub token create` makes a new one")
        return principal

    async def create(
        self, name: str, scopes: Sequence[str], *, expires_us: int | None
    ) -> tuple[Token, str]:
        """Make a token; returns what is known of it, and the token itself, this once.

        Raises:
            InvalidError: the name or a scope is not valid.
        """
        check_text("token name", name)
        text = secrets.token_urlsafe(_BYTES)
        token = Token(
            self._ids.ulid(),
            name,
            tuple(check_scope(scope) for scope in scopes),
            self._clock.now_us(),
            expires_us,
            None,
        )
        row = {
            "id": token.id,
            "name": name,
            "scopes": " ".join(token.scopes),
            "hash": _hash(text),
            "created_us": token.created_us,
            "expires_us": expires_us,
        }
        await self._journal.execute((insert(TokenRow), [row]))
        self._remember(_hash(text), token)
        return token, text

    async def revoke(self, token_id: str) -> None:
        """Make a token worthless; all that was opened with it ends before this returns.

        Raises:
            NotFoundError: no such token.
        """
        found = [key for key, (token, _) in self._by_hash.items() if token.id == token_id]
        if not found or token_id == ADMIN:
            raise NotFoundError(f"no token has the id {token_id!r}; `hubbub token ls` shows all")
        now_us = self._clock.now_us()
        statement = update(TokenRow).where(col(TokenRow.id) == token_id).values(revoked_us=now_us)
        await self._journal.execute((statement, []))
        self._by_hash.pop(found[0], None)
        self._credentials.revoke(token_id)

    async def listed(self) -> list[Token]:
        """Return all tokens ever made, newest first."""

        def find(session: Session) -> list[Token]:
            rows = session.exec(select(TokenRow).order_by(col(TokenRow.created_us).desc())).all()
            return [_token_of(row) for row in rows]

        return await self._database.read(find)

    def _remember_admin(self, token: str) -> None:
        admin = Token(ADMIN, ADMIN, (ADMIN,), 0, None, None)
        self._remember(_hash(token), admin)

    def _remember(self, hashed: bytes, token: Token) -> None:
        source = f"api.{escape(token.name)}"
        principal = Principal(token.name, source, frozenset(token.scopes), id=token.id)
        self._by_hash[hashed] = (token, principal)
        self._credentials.admit(token.id, expires_us=token.expires_us)


def _hash(token: str) -> bytes:
    return sha256(token.encode("utf-8", errors="surrogatepass")).digest()


def _token_of(row: TokenRow) -> Token:
    return Token(
        row.id, row.name, tuple(row.scopes.split()), row.created_us, row.expires_us, row.revoked_us
    )
