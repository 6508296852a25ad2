"""From files, variables and arguments to one checked `Config`, in two passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError

from hubbub.config.guards import GuardsSettings
from hubbub.config.lines import Keys
from hubbub.config.models import (
    CoreSettings,
    EngineSettings,
    HubSettings,
    LogSettings,
    StoreSettings,
)
from hubbub.config.problems import Problem, explain, near_miss
from hubbub.config.routes import RouteSettings
from hubbub.config.settings import Settings, adapter_model
from hubbub.config.source import Override, Reading, Source, read_source
from hubbub.errors import ConfigError

__all__ = ["Config", "load_config"]

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of the core, and the way to those of adapters and plugins."""

    hub: HubSettings
    log: LogSettings
    store: StoreSettings
    engine: EngineSettings
    guards: GuardsSettings
    routes: tuple[RouteSettings, ...]
    _source: Source = field(repr=False)
    _again: Callable[[], Config] = field(repr=False)

    @property
    def file(self) -> Path | None:
        """The file that was read; None when there was none."""
        return None if self._source.file is None else Path(self._source.file)

    @property
    def private_files(self) -> frozenset[Path]:
        """The file that was read, and those that hold secrets."""
        return frozenset(self._source.private_files)

    @property
    def store_url(self) -> str:
        """`store.url` with `{data_dir}` filled in; it may hold a password."""
        return self.store.url.reveal().replace("{data_dir}", self.hub.data_dir.as_posix())

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the tables below `[adapters]` or `[plugins]` that are mentioned anywhere."""
        return self._source.names(kind)

    def section(self, kind: str, name: str, model: type[S]) -> S:
        """Read `[<kind>.<name>]`, the table of an adapter or plugin that is loaded now.

        The model of an adapter that has not what the hub itself reads of such a table (`enabled`,
        `listen`, ...) gets it: any model of pydantic will do.

        Raises:
            ConfigError: with every problem of this table.
        """
        if kind == "adapters":
            model = adapter_model(model)
        return _validated(self._source, model, (kind, name))

    def check_sections(self, known: Mapping[str, set[str]]) -> None:
        """Complain about tables that nobody who is loaded claims.

        Args:
            known: Names by kind: `{"adapters": {"relay"}, "plugins": set()}`.

        Raises:
            ConfigError: with a line for each such table.
        """
        problems: list[str] = []
        for kind, names in known.items():
            folded = {name.lower().replace("-", "_") for name in names}
            problems += [
                self._source.problem(
                    (kind, name),
                    f"no {kind.removesuffix('s')} of this name is loaded{near_miss(name, names)}",
                )
                for name in self.names(kind)
                if name not in names and name not in folded
            ]
        if problems:
            raise ConfigError(problems)

    def read_again(self) -> Config:
        """Read the same file, variables and arguments as they are now.

        Raises:
            ConfigError: with a line for every problem.
        """
        return self._again()

    def table(self, kind: str, name: str) -> Mapping[str, object]:
        """Return `[<kind>.<name>]` as it stands in the file, unread; it may hold secrets."""
        tables = cast("Mapping[str, Mapping[str, object]]", self._source.tree.get(kind, {}))
        return tables.get(name, {})

    def place(self, *keys: str | int) -> str:
        """Name where a setting was said, such as `hub.toml:12`; for errors found later."""
        return self._source.place(keys)


def load_config(
    path: Path | None,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read and check the settings of the core.

    An override beats the environment, which beats the file, which beats the default.

    Args:
        path: The file; None for `hub.toml` in the working directory, if it is there.
        overrides: `--set` arguments, `table.key=value`.
        environ: Variables `HUBBUB_TABLE__KEY`, and `HUBBUB_TABLE__KEY_FILE` for the content of
            a file.

    Raises:
        ConfigError: with a line for every problem: where, what, and what to do.
    """
    source = read_source(path, overrides, environ)
    problems = _check_route_names(source)
    try:
        core = _validated(source, CoreSettings, ())
    except ConfigError as error:
        raise ConfigError(problems + error.problems) from None
    if problems:
        raise ConfigError(problems)
    return Config(
        hub=core.hub,
        log=core.log,
        store=core.store,
        engine=core.engine,
        guards=core.guards,
        routes=core.routes,
        _source=source,
        _again=partial(load_config, path, overrides=overrides, environ=environ),
    )


def _validated(source: Source, model: type[S], prefix: tuple[str, ...]) -> S:
    """Read one table.

    An override that does not fit is read in another way before it is a problem: `12` may be meant
    as text, and `a, b` as a list.
    """
    readings: dict[Override, Reading] = {}
    while True:
        table, lines = source.table(model, prefix, readings)
        try:
            settings = model.model_validate(table, context={"folder": source.folder})
        except ValidationError as error:
            problems = [each.below(prefix) for each in explain(error, model)]
        else:
            if lines:
                raise ConfigError(lines)
            return settings
        if not _read_again(source, problems, readings):
            raise ConfigError(lines + [source.problem(each.keys, each.text) for each in problems])


def _read_again(source: Source, problems: list[Problem], readings: dict[Override, Reading]) -> bool:
    """Choose other readings for overrides with problems; tell whether there is one."""
    again = False
    for override in source.overrides:
        own = [each for each in problems if override.covers(each.keys)]
        reading = readings.get(override, "toml")
        if own and reading == "toml":
            readings[override], again = "text", True
        elif reading == "text" and any(each.wants_list for each in own):
            readings[override], again = "list", True
    return again


def _check_route_names(source: Source) -> list[str]:
    routes = source.tree.get("routes")
    problems: list[str] = []
    seen: dict[object, Keys] = {}
    for index, route in enumerate(cast("list[object]", routes) if isinstance(routes, list) else []):
        name = cast("dict[str, object]", route).get("name") if isinstance(route, dict) else None
        place: Keys = ("routes", index, "name")
        if isinstance(name, str) and (first := seen.setdefault(name, place)) is not place:
            text = f"{name!r} is taken by the route at {source.place(first)}; give it its own name"
            problems.append(source.problem(place, text))
    return problems
