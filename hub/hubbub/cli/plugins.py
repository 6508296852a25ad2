"""Commands of plugins: asked for only when a call may be about one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from hubbub.cli.loading import named_while_loading
from hubbub.cli.output import clean, note, quiet_logs

if TYPE_CHECKING:
    from hubbub.plugins import Plugins

__all__ = ["add_plugin_commands", "load_plugins"]


def load_plugins() -> Plugins:
    """Return all installed plugins, imported; those that fail say so themselves."""
    from hubbub.observe.metrics import Metrics
    from hubbub.plugins import Plugins

    quiet_logs()
    plugins = Plugins(Metrics())
    with named_while_loading(plugins):
        plugins.load()
    return plugins


def add_plugin_commands(
    app: typer.Typer, own: frozenset[str], *, plugins: Plugins | None = None
) -> None:
    """Let every plugin add commands to the application; a plugin that raises is reported.

    A group whose name is there already, such as `simulate`, is joined with that one. A command
    that has the name of one of the hub's own is left out and reported.
    """
    plugins = load_plugins() if plugins is None else plugins
    before = len(app.registered_commands), len(app.registered_groups)
    with named_while_loading(plugins):
        plugins.collect("cli_commands", app)
    for plugin in plugins:
        if plugin.state == "failed":
            note(f"hubbub: plugin {plugin.name!r} has no commands now: {clean(plugin.reason)}")
    app.registered_commands[before[0] :] = _allowed(app.registered_commands[before[0] :], own)
    _join_groups(app, before[1], own)


def _allowed(commands: Iterable[Any], own: frozenset[str]) -> list[Any]:
    allowed: list[Any] = []
    for command in commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        if name in own:
            note(
                f"hubbub: command {name!r} of {command.callback.__module__} is left out, "
                "because the hub has one of that name"
            )
        else:
            allowed.append(command)
    return allowed


def _join_groups(app: typer.Typer, first: int, own: frozenset[str]) -> None:
    """Put commands of later groups into the first group of the same name."""
    groups: dict[str, typer.Typer] = {}
    kept: list[Any] = []
    for place, info in enumerate(app.registered_groups):
        name, group = info.name, info.typer_instance
        there = groups.get(name) if isinstance(name, str) else None
        if there is None or group is None:
            kept.append(info)
            if isinstance(name, str) and group is not None:
                groups[name] = group
        elif place >= first and group is not there:
            taken = frozenset(_names(there)) if name in own else frozenset[str]()
            there.registered_commands += _allowed(group.registered_commands, taken)
            there.registered_groups += group.registered_groups
    app.registered_groups[:] = kept


def _names(group: typer.Typer) -> list[str]:
    return [
        command.name or command.callback.__name__.replace("_", "-")
        for command in group.registered_commands
        if command.callback is not None
    ]
