"""All texts by language and key: those of files, and over them what an operator has changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, cast

from hubbub.envelope import encode_json
from hubbub.errors import HubError, InvalidError, NotFoundError
from hubbub_i18n.locales import canonical, chain

__all__ = [
    "MAX_FILLED",
    "MAX_KEYS",
    "MAX_LOCALES",
    "MAX_TEXT",
    "CatalogueError",
    "Catalogues",
    "render",
]

MAX_LOCALES: Final = 100
MAX_KEYS: Final = 5000
"""Changed texts of one language."""

MAX_TEXT: Final = 4096
"""Characters of one text."""

MAX_FILLED: Final = 2 * 1024 * 1024
"""Characters of the values in one text: a message of 1 MiB may be named a thousand times."""

_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}", re.ASCII)


class CatalogueError(HubError):
    """A file of texts cannot be used."""

    code = "catalogue"


def render(template: str, args: Mapping[str, object]) -> str:
    """Fill in `{name}`; a name without a value stays as it is, and a value is not read again.

    So does a name whose value would make the text longer than `MAX_FILLED`.
    """
    values: dict[str, str] = {}
    left = MAX_FILLED

    def filled(place: re.Match[str]) -> str:
        nonlocal left
        name = place[1]
        if name not in args:
            return place[0]
        if name not in values:
            value = args[name]
            values[name] = value if isinstance(value, str) else encode_json(value).decode()
        left -= len(values[name])
        return values[name] if left >= 0 else place[0]

    return _PLACE.sub(filled, template)


class Catalogues:
    """Texts by language and key."""

    def __init__(self, default: str = "zh-CN") -> None:
        self.default: Final = default
        self._files: dict[str, dict[str, str]] = {}
        self._changed: dict[str, dict[str, str]] = {}

    def read_bundled(self) -> None:
        """Read the texts that come with the hub."""
        self._read(resources.files("hubbub_i18n").joinpath("catalogues"))

    def read_folder(self, folder: Path) -> None:
        """Read texts of a folder over those that are there.

        Raises:
            CatalogueError: no folder, or a file in it that is no catalogue.
        """
        if not folder.is_dir():
            raise CatalogueError(f"plugins.i18n.folder: there is no folder {folder}")
        self._read(folder)

    def _read(self, folder: Traversable) -> None:
        for file in folder.iterdir():
            name, dot, kind = file.name.rpartition(".")
            if not dot or kind != "toml":
                continue
            try:
                table = tomllib.loads(file.read_text(encoding="utf-8"))
                texts = dict(_flat(table))
                self._files.setdefault(canonical(name), {}).update(texts)
            except (ValueError, OSError) as error:
                raise CatalogueError(f"{file}: {error}") from error

    # What is there

    def locales(self) -> list[str]:
        """Return the languages that have any text."""
        return sorted({*self._files, *self._changed})

    def keys(self) -> set[str]:
        """Return the keys that any language has."""
        tables = (*self._files.values(), *self._changed.values())
        return {key for table in tables for key in table}

    def texts(self, locale: str) -> dict[str, str]:
        """Return the texts of one language.

        Raises:
            NotFoundError: it has none.
        """
        locale = checked(locale)
        if locale not in self._files and locale not in self._changed:
            raise NotFoundError(f"there are no texts in {locale!r}; PUT some to begin")
        texts = {**self._files.get(locale, {}), **self._changed.get(locale, {})}
        return dict(sorted(texts.items()))

    def find(self, key: str, locale: str) -> str | None:
        """Return a template: of the language, of it without region, of the default; or None."""
        for place in chain(locale, self.default):
            for tables in (self._changed, self._files):
                found = tables.get(place, {}).get(key)
                if found is not None:
                    return found
        return None

    def say(self, key: str, args: Mapping[str, object], locale: str | None) -> str:
        """Return a text; where nobody has it, its key.

        Raises:
            InvalidError: no name of a language.
        """
        place = self.default if not locale else checked(locale)
        template = self.find(key, place)
        return key if template is None else render(template, args)

    # What changes

    def check(self, locale: str, texts: Mapping[str, str | None]) -> str:
        """Return the language, if these texts may be put there; None takes a change back.

        Raises:
            InvalidError: a key or a text that cannot be, or too many of them.
        """
        locale = checked(locale)
        if locale not in self.locales() and len(self.locales()) >= MAX_LOCALES:
            raise InvalidError(f"there are {MAX_LOCALES} languages, which is the limit")
        for key, text in texts.items():
            if not _KEY.fullmatch(key):
                raise InvalidError(
                    f"{key[:40]!r} is no key; it has 1 to 128 letters, digits, '.', '-' and '_'"
                )
            if text is not None and (len(text) > MAX_TEXT or "\0" in text):
                raise InvalidError(
                    f"the text of {key!r} has {len(text)} characters, the limit is {MAX_TEXT}, "
                    "NUL is not one of them"
                )
        if len({*self._changed.get(locale, {}), *texts}) > MAX_KEYS:
            raise InvalidError(f"a language has at most {MAX_KEYS} changed texts")
        return locale

    def change(self, locale: str, texts: Mapping[str, str | None]) -> None:
        """Lay texts over those of the files; None takes a change back."""
        table = self._changed.setdefault(locale, {})
        for key, text in texts.items():
            if text is None:
                table.pop(key, None)
            else:
                table[key] = text
        if not table:
            del self._changed[locale]


def checked(locale: str) -> str:
    """Return a language as it is written.

    Raises:
        InvalidError: no name of one.
    """
    try:
        return canonical(locale)
    except ValueError as error:
        raise InvalidError(str(error)) from None


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield `a.b.c` and its text for a table in a table in a table.

    Raises:
        ValueError: something that is no text.
    """
    for key, value in table.items():
        match value:
            case str():
                yield prefix + key, value
            case dict():
                yield from _flat(cast("dict[str, object]", value), f"{prefix}{key}.")
            case _:
                raise ValueError(f"{prefix}{key} is no text")
