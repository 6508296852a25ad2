"""`hubbub check`: what is wrong with hub.toml, before a hub is started with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import typer

from hubbub.cli.loading import named_while_loading
from hubbub.cli.options import AsJson, ConfigFile, Overrides
from hubbub.cli.output import note, print_json, print_line, quiet_logs

if TYPE_CHECKING:
    from hubbub.config import Config, RouteCaseSettings
    from hubbub.core import Core
    from hubbub.envelope import Envelope

__all__ = ["check", "examine", "number_of"]


@dataclass(slots=True)
class Findings:
    """What was checked, and what is wrong."""

    file: str
    problems: list[str] = field(default_factory=list[str])
    adapters: list[str] = field(default_factory=list[str])
    plugins: list[str] = field(default_factory=list[str])
    routes: int = 0
    route_tests: int = 0


def check(config: ConfigFile = None, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check hub.toml and its route tests. Every key, every route; starts nothing."""
    found = examine(config, overrides or [])
    if as_json:
        print_json(
            {
                "ok": not found.problems,
                "file": found.file,
                "problems": found.problems,
                "adapters": found.adapters,
                "plugins": found.plugins,
                "routes": found.routes,
                "route_tests": found.route_tests,
            }
        )
    else:
        for problem in found.problems:
            note(problem)
        print_line(_summary(found))
    raise typer.Exit(1 if found.problems else 0)


def _summary(found: Findings) -> str:
    verdict = number_of(len(found.problems), "problem") if found.problems else "ok"
    adapters = f" ({', '.join(found.adapters)})" if found.adapters else ""
    return (
        f"{found.file}: {verdict}; checked {number_of(len(found.plugins), 'plugin')}, "
        f"{number_of(len(found.adapters), 'adapter')} switched on{adapters}, "
        f"{number_of(found.routes, 'route')}, {number_of(found.route_tests, 'route test')}"
    )


def number_of(number: int, what: str) -> str:
    """Return a number of things in words, such as `1 route`."""
    return f"{number} {what}{'s' * (number != 1)}"


def examine(config: ConfigFile, overrides: Sequence[str]) -> Findings:
    """Return all that is wrong, without starting or writing anything."""
    from hubbub.config import load_config
    from hubbub.errors import ConfigError

    quiet_logs()
    try:
        settings = load_config(config, overrides=overrides)
    except ConfigError as error:
        return Findings(str(config or "hub.toml"), error.problems)
    from hubbub.core import Core

    found = Findings(str(settings.file or "defaults (no hub.toml here)"))
    core = Core(settings)
    try:
        with named_while_loading(core.plugins):
            core.load()
    except ConfigError as error:
        found.problems += error.problems
    found.problems += core.contributions.check_tls(settings)
    found.problems += [
        f"plugin {plugin.name!r}: {plugin.reason}"
        for plugin in core.plugins
        if plugin.state == "failed"
    ]
    found.plugins = [plugin.name for plugin in core.plugins]
    found.adapters = [running.name for running in core.adapters]
    found.routes = len(settings.routes)
    found.route_tests = sum(len(route.test) for route in settings.routes)
    if not found.problems:  # with half a table every test fails
        found.problems += _failing_tests(core, settings)
    return found


def _failing_tests(core: Core, config: Config) -> Iterator[str]:
    """Yield a line for each `[[routes.test]]` that goes elsewhere."""
    from hubbub.errors import HubError

    for index, route in enumerate(config.routes):
        for number, case in enumerate(route.test):
            where = config.place("routes", index, "test", number)
            head = f"{where}: test {number + 1} of route {route.name!r}"
            try:
                envelope = _envelope(case)
                names, targets = dry_run(core, envelope)
            except (HubError, TypeError, ValueError) as error:
                yield f"{head}: {error}"
                continue
            if set(targets) != set(case.to):
                yield (
                    f"{head}: {envelope.subject!r} goes to {_listed(targets)}"
                    f"{' by ' + _listed(names) if names else ''}, "
                    f"the test wants {_listed(case.to)}{_near_misses(core, envelope, names)}"
                )


def dry_run(core: Core, envelope: Envelope) -> tuple[list[str], list[str]]:
    """Return the routes an envelope matches and where they point, templates filled in."""
    if envelope.to:
        return [], list(envelope.to)
    matched = core.table.match(envelope)
    targets = dict.fromkeys(to for route in matched for to in route.targets(envelope))
    return [route.route.name for route in matched], list(targets)


def _envelope(case: RouteCaseSettings) -> Envelope:
    """Make the envelope of a test; `given` is as the short form of publishing.

    Raises:
        ValueError: a key that an envelope does not have.
        TypeError: a value of the wrong kind.
    """
    from hubbub.config.problems import near_miss
    from hubbub.envelope import Envelope

    known = ("subject", "type", "data", "key", "priority", "reply_to", "to", "source", "durable")
    for name in case.given:
        if name not in known:
            raise ValueError(f"given.{name}: unknown key{near_miss(name, known)}")
    given = {"source": "api.check", **case.given}
    if "to" in given:
        to = given["to"]
        given["to"] = (to,) if isinstance(to, str) else tuple(cast("list[str]", to))
    return Envelope.new(**given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _near_misses(core: Core, envelope: Envelope, names: Sequence[str]) -> str:
    """Say which routes cover the subject and yet do not apply, and why."""
    from hubbub.subjects import matches

    missed: list[str] = []
    for route in core.table:
        if route.name in names or not matches(route.match, envelope.subject):
            continue
        if route.types and envelope.type not in route.types:
            missed.append(f"route {route.name!r} is for other types")
        elif route.fallback and names:
            missed.append(f"route {route.name!r} is a fallback, another one matched")
        else:
            missed.append(f"the condition of route {route.name!r} does not hold")
    return f"; {'; '.join(missed)}" if missed else ""


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(repr(text) for text in texts) if texts else "nowhere"
