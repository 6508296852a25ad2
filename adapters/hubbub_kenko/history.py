"""Who registered and when they left: the table `kenko_app`, written beside the path of messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, Index, delete, select, update
from sqlmodel import Field, Session, SQLModel, col

from hubbub import Hub
from hubbub.errors import HubError
from hubbub.store.tables import table_of
from hubbub_kenko.session import State

__all__ = ["History", "KenkoAppRow", "shown"]

KEPT_US: Final = 30 * 86_400 * 1_000_000
"""How long an application that has left is remembered."""

MAX_OF_A_NAME: Final = 50
"""Applications of one name that are looked for, the newest ones."""

HUB_STOPPED: Final = 1006
"""Close code of those who were connected when the hub was killed."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class KenkoAppRow(SQLModel, table=True):
    """One registration; times are microseconds since the epoch.

    Attributes:
        capabilities: Names, with commas between them.
        state: As in `session.State`; 0 once it has left.
    """

    __tablename__ = "kenko_app"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_kenko_app_registered", "registered_at", "id"),
        Index("ix_kenko_app_state", "state"),
    )

    id: str = Field(primary_key=True)
    name: str
    version: str
    description: str
    author: str
    lang: str
    capabilities: str
    state: int
    transport: str
    remote: str
    connected_at: int = Field(sa_type=BigInteger)
    registered_at: int = Field(sa_type=BigInteger)
    last_seen: int = Field(sa_type=BigInteger)
    disconnected_at: int | None = Field(default=None, sa_type=BigInteger)
    close_code: int | None = None


_app = table_of(KenkoAppRow)


def shown(row: KenkoAppRow) -> dict[str, Any]:
    """Return a row as the API shows it."""
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "description": row.description,
        "author": row.author,
        "lang": row.lang,
        "capabilities": row.capabilities.split(",") if row.capabilities else [],
        "state": row.state,
        "state_name": State(row.state).name,
        "transport": row.transport,
        "remote": row.remote,
        "connected_at": _text(row.connected_at),
        "registered_at": _text(row.registered_at),
        "last_seen": _text(row.last_seen),
        "disconnected_at": _text(row.disconnected_at),
        "close_code": row.close_code,
    }


def _noted(error: HubError | None) -> None:
    if error is not None:
        log.warning("kenko.history_not_written", error=str(error))


def _text(time_us: int | None) -> str | None:
    if time_us is None:
        return None
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


class History:
    """Reads and writes the table. What cannot be written is logged: no message depends on it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def begin(self) -> None:
        """Note that nobody is connected any more, and forget who left long ago.

        None is forgotten while the time is not to be trusted.
        """
        now_us = self._hub.clock.now_us()
        left = update(_app).where(col(KenkoAppRow.state) != State.DISCONNECTED)
        values = {"state": State.DISCONNECTED.value, "disconnected_at": now_us}
        await self._run(left.values(**values, close_code=HUB_STOPPED), [])
        if self._hub.retention_hold is None:
            await self.forget(before_us=now_us - KEPT_US)

    async def forget(self, *, before_us: int) -> None:
        """Forget those who left before a time."""
        old = delete(_app).where(col(KenkoAppRow.disconnected_at) < before_us)
        await self._run(old, [])

    def joined(self, row: KenkoAppRow) -> None:
        """Note a registration; what is noted after it is written after it."""
        values = row.model_dump()
        of_row = tuple(values[column.name] for column in _app.columns)
        self._hub.keep_soon([(_app, of_row)], done=_noted)

    async def changed(self, row: KenkoAppRow) -> None:
        """Note how an application is now."""
        values = row.model_dump(
            include={"state", "last_seen", "disconnected_at", "close_code"}
        )  # fmt: skip
        await self._run(update(_app).where(col(KenkoAppRow.id) == row.id).values(**values), [])

    async def remove(self, app_id: str) -> None:
        """Forget one application."""
        await self._run(delete(_app).where(col(KenkoAppRow.id) == app_id), [])

    async def find(self, app_id: str) -> KenkoAppRow | None:
        """Return one registration."""
        return await self._hub.read(lambda session: session.get(KenkoAppRow, app_id))

    async def ids_of(self, name: str) -> list[str]:
        """Return the newest applications of that name, or the one of that id."""

        def read(session: Session) -> list[str]:
            same = (col(KenkoAppRow.id) == name) | (col(KenkoAppRow.name) == name)
            newest = col(KenkoAppRow.registered_at).desc()
            query = select(col(KenkoAppRow.id)).where(same).order_by(newest).limit(MAX_OF_A_NAME)
            return list(session.scalars(query).all())

        return await self._hub.read(read)

    async def page(self, *, limit: int, before: tuple[int, str] | None) -> Sequence[KenkoAppRow]:
        """Return registrations, newest first.

        Args:
            before: Time and id of the last one that is known already.
        """

        def read(session: Session) -> Sequence[KenkoAppRow]:
            at, app_id = col(KenkoAppRow.registered_at), col(KenkoAppRow.id)
            query = select(KenkoAppRow).order_by(at.desc(), app_id.desc()).limit(limit)
            if before is not None:
                query = query.where((at < before[0]) | ((at == before[0]) & (app_id < before[1])))
            return session.scalars(query).all()

        return await self._hub.read(read)

    async def _run(self, statement: Any, rows: list[dict[str, Any]]) -> None:  # noqa: ANN401
        try:
            await self._hub.execute((statement, rows))
        except HubError as error:
            log.warning("kenko.history_not_written", error=str(error))
