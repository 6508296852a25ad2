"""Texts in many languages: the hub's own, and messages that come as a key with arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hubbub import Converter, Endpoint, Envelope, hookimpl
from hubbub.envelope import CHAT_MESSAGE, CHAT_TEMPLATE
from hubbub_i18n import texts
from hubbub_i18n.catalogues import Catalogues

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from starlette.routing import BaseRoute

    from hubbub import Hub

__all__ = ["plugin"]


class I18n:
    """The plugin `i18n`."""

    def __init__(self) -> None:
        self._catalogues = Catalogues()

    @hookimpl
    def tables(self) -> Sequence[type[SQLModel]]:
        """Give the table of changed texts."""
        from hubbub_i18n.tables import I18nEntryRow  # noqa: PLC0415  # only where a hub runs

        return [I18nEntryRow]

    @hookimpl
    async def startup(self, hub: Hub) -> None:
        """Read all texts."""
        from hubbub_i18n.tables import read_all  # noqa: PLC0415

        self._catalogues = await read_all(hub)

    @hookimpl
    def http_routes(self) -> Sequence[BaseRoute]:
        """Give the API."""
        from hubbub_i18n.api import routes  # noqa: PLC0415

        return routes(lambda: self._catalogues)

    @hookimpl
    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Say a text of the hub; None for a key that no catalogue has."""
        return texts.say(self._catalogues, key, args, locale)

    @hookimpl
    def converters(self) -> Sequence[Converter]:
        """Give the one that makes chat of a key and arguments."""

        def readable(envelope: Envelope, endpoint: Endpoint) -> Envelope | None:
            return texts.readable(self._catalogues, envelope, endpoint)

        return [Converter(CHAT_TEMPLATE, CHAT_MESSAGE, readable, for_endpoint=True)]


plugin = I18n()
