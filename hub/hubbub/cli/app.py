"""All commands in one application, and what holds for each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from hubbub.cli import (
    bench,
    check,
    db,
    dlq,
    doctor,
    endpoints,
    explain,
    healthcheck,
    init,
    node,
    plugin,
    publish,
    request,
    routes,
    run,
    tail,
    tasks,
    token,
    version,
)
from hubbub.cli.errors import FAILED, INTERRUPTED, report
from hubbub.errors import HubError

__all__ = ["build", "main", "own_names"]

SIMULATE: Final = "simulate"
"""The group that plugins fill: a fake peer for each protocol."""

COMPLETING: Final = "_HUBBUB_COMPLETE"
"""Set by the shell while it asks for completions."""

_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "run": run.run,
    "check": check.check,
    "doctor": doctor.doctor,
    "init": init.init,
    "publish": publish.publish,
    "request": request.request,
    "tail": tail.tail,
    "explain": explain.explain,
    "endpoints": endpoints.endpoints,
    "healthcheck": healthcheck.healthcheck,
    "bench": bench.bench,
    "version": version.version,
}

_PASSED_ON: Final = frozenset({"bench"})
"""Commands whose options are those of somebody else."""

_GROUPS: Final = {
    "db": db.group,
    "dlq": dlq.group,
    "node": node.group,
    "routes": routes.group,
    "tasks": tasks.group,
    "token": token.group,
    "plugin": plugin.group,
}


def build() -> typer.Typer:
    """Return the application with the hub's own commands."""
    app = typer.Typer(
        name="hubbub",
        help="A message hub: many protocols in, many protocols out, nothing lost on the way.",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help starts in half the time and reads well in a pipe
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, command in _COMMANDS.items():
        app.command(name, context_settings={"ignore_unknown_options": name in _PASSED_ON})(command)
    for name, group in _GROUPS.items():
        app.add_typer(group, name=name)
    simulate = typer.Typer(
        help="A fake peer of a protocol.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(simulate, name=SIMULATE)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        version.version(as_json=False)
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """A message hub: many protocols in, many protocols out, nothing lost on the way."""


def own_names() -> frozenset[str]:
    """Return the commands that are the hub's own."""
    return frozenset({*_COMMANDS, *_GROUPS, SIMULATE})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 ok, 1 failed, 2 usage, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(args: list[str]) -> int:
    app = build()
    if _wants_plugins(args):
        from hubbub.cli.plugins import add_plugin_commands

        add_plugin_commands(app, own_names())
    try:
        app(args=args, prog_name="hubbub")
    except HubError as error:
        return report(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else FAILED
    return 0


def _wants_plugins(args: list[str]) -> bool:
    """Tell whether this call may be about a plugin's command; loading them takes time."""
    if COMPLETING in os.environ:
        return True
    first = next((arg for arg in args if not arg.startswith("-")), None)
    if first is None:
        return not args or "--help" in args
    return first not in own_names() or first == SIMULATE


def _forget_output() -> None:
    """Nobody reads any more: keep the interpreter from complaining when it flushes at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
