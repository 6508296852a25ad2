"""What an operator has changed, over the texts of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Text, delete, insert
from sqlmodel import Field, Session, SQLModel, col, select

from hubbub import Hub
from hubbub.store.entries import Statement
from hubbub_i18n.catalogues import Catalogues
from hubbub_i18n.config import I18nSettings

__all__ = ["I18nEntryRow", "changes", "read_all"]


class I18nEntryRow(SQLModel, table=True):
    """One text of one language."""

    __tablename__ = "i18n_entry"  # pyright: ignore[reportAssignmentType]

    locale: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    text: str = Field(sa_type=Text)


async def read_all(hub: Hub) -> Catalogues:
    """Return all texts that hold: bundled, of the folder, changed.

    Raises:
        CatalogueError: a file of the folder is no catalogue.
    """
    settings = hub.plugin_settings("i18n", I18nSettings)
    catalogues = Catalogues(settings.default_locale)
    catalogues.read_bundled()
    if settings.folder:
        catalogues.read_folder(Path(settings.folder))
    for locale, entries in (await hub.read(_changed)).items():
        catalogues.change(locale, entries)
    return catalogues


def _changed(session: Session) -> dict[str, dict[str, str]]:
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
