"""Where settings come from: the file, the environment, `--set`; and which of them said what."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, cast

from pydantic import BaseModel

from hubbub.config.lines import Keys, locate, split_key
from hubbub.config.problems import dotted, has_field
from hubbub.config.units import read_secret
from hubbub.errors import ConfigError

__all__ = ["Override", "Reading", "Source", "read_source"]

DEFAULT_FILE: Final = Path("hub.toml")
ENVIRONMENT_PREFIX: Final = "HUBBUB_"

SECTION_KINDS: Final = ("adapters", "plugins")
"""Tables of tables that are read in the second pass, when their owners are loaded."""

Reading = Literal["toml", "text", "list"]
"""How the text of an override is understood; the later ones where the earlier do not fit."""

_LINE: Final = re.compile(r" \(at line (\d+), column (\d+)\)| \(at end of document\)")


@dataclass(frozen=True, slots=True)
class Override:
    """One setting from outside the file.

    Attributes:
        label: How errors name it: `--set hub.port` or `environment HUBBUB_HUB__PORT`.
        text: The value as it was given.
        folds: Its keys are lower case with `_` for `-`, because a variable can hold no other.
    """

    keys: tuple[str, ...]
    label: str
    text: str = field(repr=False)
    folds: bool = False

    def starts_with(self, keys: Sequence[str | int]) -> bool:
        """Tell whether it stands at that place or below."""
        return self._spelled(keys) == self.keys[: len(keys)]

    def covers(self, keys: Sequence[str | int]) -> bool:
        """Tell whether the value at that place came from it."""
        place = self._spelled(keys)
        stems = (self.keys, (*self.keys[:-1], self.keys[-1].removesuffix("_file")))
        return any(place[: len(stem)] == stem for stem in stems)

    def _spelled(self, keys: Sequence[str | int]) -> tuple[str, ...]:
        texts = (str(key) for key in keys)
        return tuple(text.lower().replace("-", "_") if self.folds else text for text in texts)

    def value(self, reading: Reading) -> object:
        """Return the value; what is no TOML is text."""
        if reading == "list":
            return [part.strip() for part in self.text.split(",")]
        if reading == "text":
            return self.text
        try:
            table = tomllib.loads(f"value = {self.text}")
        except (ValueError, RecursionError):
            return self.text
        return table["value"] if len(table) == 1 else self.text


@dataclass(frozen=True)
class Source:
    """Everything that was said, in layers; later overrides win.

    Attributes:
        file: The file as the user named it, for messages; None when there is none.
        folder: Where relative paths of secrets start.
    """

    file: str | None
    folder: Path
    text: str = field(repr=False)
    tree: Mapping[str, object] = field(repr=False)
    overrides: tuple[Override, ...]

    @cached_property
    def lines(self) -> dict[Keys, int]:
        """Lines of the file; found on the first complaint only."""
        return locate(self.text)

    def place(self, keys: Keys) -> str:
        """Name where a value was said, or the nearest place around it."""
        for override in reversed(self.overrides):
            if override.covers(keys):
                return override.label
        for length in range(len(keys), 0, -1):
            if (line := self.lines.get(keys[:length])) is not None:
                return f"{self.file}:{line}"
            inside = [each.label for each in self.overrides if each.starts_with(keys[:length])]
            if inside:
                return inside[-1]
        return self.file or "configuration"

    def problem(self, keys: Keys, message: str) -> str:
        """Write one line: where, what, and what to do."""
        return f"{self.place(keys)}: {dotted(keys)}: {message}"

    @property
    def private_files(self) -> Iterator[Path]:
        """The file itself, and the files that it or a variable says a secret is in."""
        if self.file is not None:
            yield Path(self.file)
        for name in _files_named(self.tree):
            yield self.folder / name
        for override in self.overrides:
            if override.folds and override.keys[-1].endswith("_file"):
                yield Path(override.text)
            for name in _files_named(override.value("toml")):
                yield self.folder / name

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the tables below `[adapters]` or `[plugins]` that anybody mentions."""
        table = self.tree.get(kind)
        names = list(cast("dict[str, object]", table)) if isinstance(table, dict) else []
        for override in self.overrides:
            known = any(override.starts_with((kind, name)) for name in names)
            if len(override.keys) > 1 and override.keys[0] == kind and not known:
                names.append(override.keys[1])
        return tuple(names)

    def table(
        self,
        model: type[BaseModel],
        prefix: tuple[str, ...],
        readings: Mapping[Override, Reading],
    ) -> tuple[object, list[str]]:
        """Return one table with its overrides laid over it, and what kept them from fitting."""
        table: object = _table_at(self.tree, prefix)
        problems: list[str] = []
        for override in self._below(prefix):
            keys = override.keys[len(prefix) :]
            try:
                if override.folds and _names_a_file(model, keys):
                    keys = (*keys[:-1], keys[-1].removesuffix("_file"))
                    value: object = read_secret(Path(override.text))
                else:
                    value = override.value(readings.get(override, "toml"))
                table = _put(table, keys, value)
            except ValueError as error:
                problems.append(f"{override.label}: {dotted((*prefix, *keys))}: {error}")
        return table, problems

    def _below(self, prefix: tuple[str, ...]) -> list[Override]:
        return [
            override
            for override in self.overrides
            if override.starts_with(prefix) and (prefix or override.keys[0] not in SECTION_KINDS)
        ]


def _table_at(tree: Mapping[str, object], keys: tuple[str, ...]) -> Mapping[str, object]:
    """Return a table of a tree whose tables of tables have been checked."""
    for key in keys:
        tree = cast("Mapping[str, object]", tree.get(key, {}))
    return tree


def _files_named(tree: object) -> Iterator[str]:
    """Yield the files of `{ file = "..." }`, and the private keys of TLS."""
    match tree:
        case {"file": str(name)} if len(cast("dict[str, object]", tree)) == 1:
            yield name
        case dict():
            for key, value in cast("dict[str, object]", tree).items():
                match key, value:
                    case "tls", {"key": str(name)}:
                        yield name
                    case _:
                        yield from _files_named(value)
        case list():
            for member in cast("list[object]", tree):
                yield from _files_named(member)
        case _:
            return


def _names_a_file(model: type[BaseModel], keys: tuple[str, ...]) -> bool:
    """Tell whether `..._FILE` is a file with the value, and not a setting of that name."""
    return bool(keys) and keys[-1].endswith("_file") and not has_field(model, keys)


def _put(tree: object, keys: tuple[str, ...], value: object) -> object:
    """Return the tree with one value more; the old tree stays as it is."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    match tree:
        case dict():
            table = cast("dict[str, object]", tree)
            return {**table, key: _put(table.get(key, {}), rest, value)}
        case list():
            members = list(cast("list[object]", tree))
            if not key.isdecimal() or int(key) >= len(members):
                raise ValueError(f"{key!r} is no member; the list has {len(members)}, from 0 on")
            members[int(key)] = _put(members[int(key)], rest, value)
            return members
        case _:
            raise ValueError(f"has no {key!r} in it, it is no table")


def read_source(path: Path | None, overrides: Sequence[str], environ: Mapping[str, str]) -> Source:
    """Read the file and gather what is laid over it.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a `--set` cannot be understood.
    """
    problems: list[str] = []
    if path is None and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    text, tree = ("", {}) if path is None else _read_file(path, problems)
    layers = (*_from_environment(environ), *_from_arguments(overrides, problems))
    if problems:
        raise ConfigError(problems)
    return Source(
        file=None if path is None else str(path),
        folder=Path() if path is None else path.parent,
        text=text,
        tree=tree,
        overrides=layers,
    )


def _read_file(path: Path, problems: list[str]) -> tuple[str, dict[str, object]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        problems.append(
            f"{path}: cannot read it: {error.strerror}; "
            "`hubbub init` writes one, and without --config the defaults hold"
        )
        return "", {}
    try:
        text = content.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(f"{path}:{line}: is not UTF-8 text; save it as UTF-8")
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(path, content, str(error)))
    except RecursionError:
        problems.append(f"{path}: tables or lists are nested too deeply")
    return "", {}


def _syntax_problem(path: Path, content: bytes, message: str) -> str:
    found = _LINE.search(message)
    line, column = (found[1], found[2]) if found else (None, None)
    last = content.rstrip().count(b"\n") + 1
    where = f" (column {column})" if column else ""
    return f"{path}:{line or last}: is not TOML: {_LINE.sub('', message)}{where}"


def _from_environment(environ: Mapping[str, str]) -> list[Override]:
    """Take `HUBBUB_TABLE__KEY`; a name without `__` is no setting (HUBBUB_URL, HUBBUB_TOKEN)."""
    return [
        Override(
            keys=tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")),
            label=f"environment {name}",
            text=environ[name],
            folds=True,
        )
        for name in sorted(environ)
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name.removeprefix(ENVIRONMENT_PREFIX)
    ]


def _from_arguments(arguments: Sequence[str], problems: list[str]) -> list[Override]:
    found: list[Override] = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        try:
            keys = split_key(key.strip())
        except ValueError:
            keys = ()
        if not equals or not keys or keys in [(kind,) for kind in SECTION_KINDS]:
            shown = re.match(r"[\w.-]*", key)
            problems.append(
                f"--set {shown[0] if shown else ''}: cannot be understood; "
                "write table.key=value, such as --set hub.port=18000"
            )
        else:
            found.append(Override(keys=keys, label=f"--set {key.strip()}", text=text.strip()))
    return found
