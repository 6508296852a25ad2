"""What an operator has changed, over the texts of files."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Text, delete, insert
from sqlmodel import Field, Session, SQLModel, col, select

from hubbub.store.entries import Statement

__all__ = ["I18nEntryRow", "changed", "changes"]


class I18nEntryRow(SQLModel, table=True):
    """One text of one language."""

    __tablename__ = "i18n_entry"  # pyright: ignore[reportAssignmentType]

    locale: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    text: str = Field(sa_type=Text)


def changed(session: Session) -> dict[str, dict[str, str]]:
    """Return all changed texts."""
    found: dict[str, dict[str, str]] = {}
    for row in session.exec(select(I18nEntryRow)).all():
        found.setdefault(row.locale, {})[row.key] = row.text
    return found


def changes(locale: str, texts: Mapping[str, str | None]) -> list[Statement]:
    """Return the statements that keep some texts, and forget those that are None."""
    gone = delete(I18nEntryRow).where(
        col(I18nEntryRow.locale) == locale, col(I18nEntryRow.key).in_(list(texts))
    )
    rows = [
        {"locale": locale, "key": key, "text": text}
        for key, text in texts.items()
        if text is not None
    ]
    return [(gone, []), *([(insert(I18nEntryRow), rows)] if rows else [])]
