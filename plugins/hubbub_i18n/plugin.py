"""The hooks: texts for the hub, templates of chat made readable, an API for who writes texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from sqlmodel import SQLModel
from starlette.routing import BaseRoute

from hubbub import Converter, Endpoint, Envelope, Hub, hookimpl
from hubbub.envelope import CHAT_MESSAGE, CHAT_TEMPLATE, encode_json
from hubbub_i18n.api import operations
from hubbub_i18n.catalogues import Catalogues, render
from hubbub_i18n.config import I18nSettings
from hubbub_i18n.locales import canonical
from hubbub_i18n.tables import I18nEntryRow, changed

__all__ = ["I18n"]


class I18n:
    """The plugin `i18n`."""

    def __init__(self) -> None:
        self._texts = Catalogues()

    @hookimpl
    def tables(self) -> Sequence[type[SQLModel]]:
        """Give the table of changed texts."""
        return [I18nEntryRow]

    @hookimpl
    async def startup(self, hub: Hub) -> None:
        """Read all texts."""
        settings = hub.plugin_settings("i18n", I18nSettings)
        texts = Catalogues(settings.default_locale)
        texts.read_bundled()
        if settings.folder:
            texts.read_folder(Path(settings.folder))
        for locale, entries in (await hub.read(changed)).items():
            texts.change(locale, entries)
        self._texts = texts

    @hookimpl
    def http_routes(self) -> Sequence[BaseRoute]:
        """Give the API."""
        from hubbub.web import operation_routes  # noqa: PLC0415  # only where a hub serves

        return operation_routes(operations(lambda: self._texts))

    @hookimpl
    def translate(self, key: str, args: Mapping[str, object], locale: str) -> str | None:
        """Say a text of the hub; None for a key that no catalogue has."""
        template = self._texts.find(key, _known(locale) or self._texts.default)
        return None if template is None else render(template, args)

    @hookimpl
    def converters(self) -> Sequence[Converter]:
        """Give the one that makes chat of a key and arguments."""
        return [Converter(CHAT_TEMPLATE, CHAT_MESSAGE, self._readable, for_endpoint=True)]

    def _readable(self, envelope: Envelope, endpoint: Endpoint) -> Envelope | None:
        """Say a template in the language of who gets it: the endpoint's, else the message's.

        What is no template is filtered: it is the sender's mistake, and no fault of the plugin.
        """
        template = _template(envelope)
        if template is None:
            return None
        key, args, chat = template
        locale = (
            _known(endpoint.labels.get("lang")) or _known(chat.get("lang")) or self._texts.default
        )
        text = self._texts.say(key, args, locale)
        return envelope.replace(
            type=CHAT_MESSAGE, data=encode_json({**chat, "text": text, "lang": locale})
        )


def _template(envelope: Envelope) -> tuple[str, Mapping[str, object], dict[str, object]] | None:
    """Return key, arguments, and the rest of a message; None for what is no template."""
    match envelope.json():
        case {"key": str(key), "args": dict() as args, **chat}:
            pass
        case {"key": str(key), **chat} if "args" not in chat:
            args = {}
        case _:
            return None
    return key, cast("dict[str, object]", args), cast("dict[str, object]", chat)


def _known(locale: object) -> str | None:
    """Return a language as it is written; None for what is none."""
    try:
        return canonical(locale) if isinstance(locale, str) else None
    except ValueError:
        return None
