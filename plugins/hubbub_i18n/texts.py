"""Texts as they are said: those of the hub, and templates that come as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from hubbub import Endpoint, Envelope
from hubbub.envelope import CHAT_MESSAGE, encode_json
from hubbub_i18n.catalogues import Catalogues, render
from hubbub_i18n.locales import canonical

__all__ = ["readable", "say"]


def say(catalogues: Catalogues, key: str, args: Mapping[str, object], locale: str) -> str | None:
    """Return a text; None for a key that no catalogue has."""
    template = catalogues.find(key, _known(locale) or catalogues.default)
    return None if template is None else render(template, args)


def readable(catalogues: Catalogues, envelope: Envelope, endpoint: Endpoint) -> Envelope | None:
    """Return a template as chat, in the language of who gets it: the endpoint's, else its own.

    What is no template gives None: it is the sender's mistake, and no fault of the plugin.
    """
    template = _template(envelope)
    if template is None:
        return None
    key, args, chat = template
    locale = _known(endpoint.labels.get("lang")) or _known(chat.get("lang")) or catalogues.default
    text = catalogues.say(key, args, locale)
    return envelope.replace(
        type=CHAT_MESSAGE, data=encode_json({**chat, "text": text, "lang": locale})
    )


def _template(envelope: Envelope) -> tuple[str, Mapping[str, object], dict[str, object]] | None:
    """Return key, arguments, and the rest of a message; None for what is no template."""
    data = envelope.json()
    if not isinstance(data, dict):
        return None
    chat = dict(cast("dict[str, object]", data))
    key, args = chat.pop("key", None), chat.pop("args", {})
    if not isinstance(key, str) or not isinstance(args, dict):
        return None
    return key, cast("dict[str, object]", args), chat


def _known(locale: object) -> str | None:
    """Return a language as it is written; None for what is none."""
    try:
        return canonical(locale) if isinstance(locale, str) else None
    except ValueError:
        return None
