"""What an error of a database means: a bad entry, or a database that cannot be used just now."""

from __future__ import annotations

import sqlite3
from typing import Final, Self

from sqlalchemy.exc import DBAPIError

from hubbub.errors import HubError, StoreUnavailableError

__all__ = [
    "StoreDamagedError",
    "cause_of",
    "is_conflict",
    "is_damage",
    "is_missing",
    "is_outage",
    "reason_of",
]

_BAD_ENTRY: Final = {"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"}
"""Errors of PEP 249 that speak of what was asked, not of the database."""

_GONE: Final = {"3D000", "3F000", "42501", "42703", "42P01"}
"""SQLSTATEs of a database, schema, right, column or table that is not there."""

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_RESTORE: Final = "stop the hub and put a backup back: hubbub db restore FILE"

_ADVICE: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full, or a quota is: make room",
    sqlite3.SQLITE_BUSY: "another process holds the file: end what reads or copies it with a lock",
    sqlite3.SQLITE_IOERR: "the disk fails or is full: look at the system's log",
    sqlite3.SQLITE_READONLY: "the file or its folder may not be written: give the hub the right to",
    sqlite3.SQLITE_INTERRUPT: "it took longer than store.timeout",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: look at its folder and its rights",
    sqlite3.SQLITE_CORRUPT: f"the file is damaged: {_RESTORE}",
    sqlite3.SQLITE_NOTADB: f"the file is damaged: {_RESTORE}",
}


class StoreDamagedError(StoreUnavailableError):
    """The database file cannot be read as one."""

    code = "store_damaged"

    @classmethod
    def at(cls, path: str, cause: str) -> Self:
        """Return the error of a file, with what to do."""
        return cls(
            f"{path} is damaged ({cause}); with the hub stopped, put a backup back: "
            "hubbub db restore FILE (the damaged file is kept beside it), "
            "or move the file away to begin with an empty one"
        )


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's own error."""
    return error.orig or error if isinstance(error, DBAPIError) else error


def is_outage(error: BaseException) -> bool:
    """Tell whether the database cannot be used just now, whatever it is asked."""
    if isinstance(error, OSError | HubError):
        return True
    cause = cause_of(error)
    if _code(cause) is not None:
        return _code(cause) in _ADVICE or isinstance(cause, sqlite3.OperationalError)
    if _state(cause) in _GONE:
        return True
    names = {kind.__name__ for kind in type(cause).__mro__}
    if names & _BAD_ENTRY:
        return False
    return bool(names & {"OperationalError", "InterfaceError", "InternalError", "DatabaseError"})


def is_missing(error: BaseException) -> bool:
    """Tell whether a statement asked for a table or column that is not there.

    That is an outage where the table is the hub's own, and a bad statement where it is not.
    """
    cause = cause_of(error)
    return _code(cause) == sqlite3.SQLITE_ERROR or _state(cause) in _GONE


def is_conflict(error: BaseException) -> bool:
    """Tell whether something is there already that may be there once only."""
    return "IntegrityError" in (kind.__name__ for kind in type(cause_of(error)).__mro__)


def is_damage(error: BaseException) -> bool:
    """Tell whether the file of the database is no longer one."""
    return _code(cause_of(error)) in _DAMAGE


def reason_of(error: BaseException) -> str:
    """Return what is wrong in one line, and what to do where that is known."""
    cause = cause_of(error)
    text = " ".join(str(cause).split()) or type(cause).__name__
    advice = _ADVICE.get(_code(cause) or 0)
    return f"{text} ({advice})" if advice else text


def _state(cause: BaseException) -> str | None:
    """Return the SQLSTATE that a server gave."""
    state: str | None = getattr(cause, "sqlstate", None)
    return state


def _code(cause: BaseException) -> int | None:
    """Return SQLite's primary result code; None for another database."""
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
