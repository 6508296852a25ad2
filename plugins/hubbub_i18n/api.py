"""Texts over HTTP, below `/api/i18n`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from starlette.routing import BaseRoute

from hubbub.web import Call, Operation, Parameter, Reply, Spec, operation_routes, page
from hubbub_i18n.catalogues import Catalogues
from hubbub_i18n.tables import changes

__all__ = ["routes"]


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A text to say."""

    key: str
    args: dict[str, Any] = {}
    locale: str | None = None


class LocaleView(msgspec.Struct):
    """A language, how many texts it has and how many it lacks."""

    locale: str
    keys: int
    missing: int
    default: bool


class LocaleList(msgspec.Struct):
    """All languages."""

    items: list[LocaleView]
    next: None


class Said(msgspec.Struct):
    """A text that was said."""

    text: str


LOCALE: Final = Parameter(
    "locale", "A language, such as `zh-CN`.", {"type": "string", "minLength": 1}, "path"
)
TEXTS: Final = dict[str, str]

LIST: Final = Spec(answers={200: LocaleList})
SHOW: Final = Spec(answers={200: TEXTS}, parameters=(LOCALE,), problems=(404, 422))
PUT: Final = Spec(answers={200: TEXTS}, body=dict[str, str | None], parameters=(LOCALE,))
SAY: Final = Spec(answers={200: Said}, body=Wanted)


def routes(texts: Callable[[], Catalogues]) -> list[BaseRoute]:
    """Return the paths; `texts` gives what is there now."""

    async def locales(call: Call) -> Reply:
        """List languages, how many texts each has and how many it lacks."""
        del call
        known, keys = texts(), texts().keys()
        sizes = {locale: len(known.texts(locale)) for locale in known.locales()}
        items = [
            LocaleView(locale, size, len(keys) - size, locale == known.default)
            for locale, size in sizes.items()
        ]
        return page(items, None)

    async def show(call: Call) -> Reply:
        """Return the texts of one language, a template by each key."""
        return Reply(200, texts().texts(call.params["locale"]))

    async def put(call: Call) -> Reply:
        """Lay texts over those that are there; null takes a change back."""
        wanted = await call.json(dict[str, str | None])
        locale = texts().check(call.params["locale"], wanted)
        if wanted:
            await call.core.execute(*changes(locale, wanted))
            texts().change(locale, wanted)
            await call.core.audit(call.principal.name, "i18n.put", locale, f"{len(wanted)} texts")
        known = locale in texts().locales()
        return Reply(200, texts().texts(locale) if known else {})

    async def said(call: Call) -> Reply:
        """Say one text."""
        wanted = await call.json(Wanted)
        return Reply(200, Said(texts().say(wanted.key, wanted.args, wanted.locale)))

    read = ("read",)
    operations = [
        Operation("GET", "/api/i18n/locales", locales, "Languages", read, LIST),
        Operation("GET", "/api/i18n/{locale}", show, "Texts of a language", read, SHOW),
        Operation("PUT", "/api/i18n/{locale}", put, "Change texts of a language", spec=PUT),
        Operation("POST", "/api/i18n/render", said, "Say one text", read, SAY),
    ]
    return [*operation_routes(operations)]
