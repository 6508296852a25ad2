"""What is remembered of plugins over a restart: those that shall stay off."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Insert, delete, insert
from sqlmodel import Session, col, select

from hubbub.store.tables import PluginStateRow

__all__ = ["forgetting", "remembered", "remembering"]


def remembered(session: Session) -> dict[str, tuple[str, str]]:
    """Return state and reason of plugins that shall not be loaded, by name."""
    rows = session.exec(select(PluginStateRow)).all()
    return {row.name: (row.state, row.reason) for row in rows}


def forgetting(name: str) -> tuple[Delete, list[dict[str, Any]]]:
    """Return the statement that lets a plugin be loaded again."""
    return delete(PluginStateRow).where(col(PluginStateRow.name) == name), []


def remembering(
    name: str, state: str, reason: str, at_us: int
) -> tuple[Insert, list[dict[str, Any]]]:
    """Return the statement that keeps a plugin off; `forgetting` goes before it."""
    row = {"name": name, "state": state, "reason": reason, "at_us": at_us}
    return insert(PluginStateRow), [row]
