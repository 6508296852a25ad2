"""`hubbub plugin`: what is installed, and how it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hubbub.cli.client import HubClient, part
from hubbub.cli.errors import FAILED, CommandError
from hubbub.cli.listing import Columns, show_answer, show_list
from hubbub.cli.options import DEFAULT_URL, AsJson, Token, Url
from hubbub.cli.output import clean, note, print_json, print_line
from hubbub.cli.plugin_new import files_of, write_package

__all__ = ["group"]

group = typer.Typer(
    help="Plugins: what is installed and what the hub makes of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TIMEOUT_S: Final = 2.0
SWITCH_S: Final = 70.0
"""How long a plugin's start or end may take."""


@group.callback()
def plugins() -> None:
    """Plugins: what is installed and what the hub makes of it."""


COLUMNS: Final[Columns] = {
    "NAME": "name",
    "DISTRIBUTION": "distribution",
    "VERSION": "version",
    "STATE": lambda each: each.get("state") or "installed",
    "REASON": lambda each: each.get("reason") or "",
}


@group.command("ls")
def ls(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """List installed plugins; with their states, if a hub is running."""
    from hubbub.cli.plugins import load_plugins

    rows: dict[str, dict[str, Any]] = {
        found.name: {
            "name": found.name,
            "distribution": found.distribution,
            "version": found.version,
            "installed": True,
            "state": "failed" if found.state == "failed" else None,
            "reason": found.reason,
        }
        for found in load_plugins()
    }
    told = _states(url, token)
    for state in told or []:
        row = rows.setdefault(str(state["name"]), {"name": state["name"], "installed": False})
        row.update({name: state[name] for name in state if name != "name"})
    if as_json:
        print_json({"hub": url if told is not None else None, "items": list(rows.values())})
        return
    show_list(list(rows.values()), COLUMNS, as_json=False, empty="no plugin is installed")


@group.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Such as word-count.")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where; without it, hubbub-NAME here.")
    ] = None,
) -> None:
    """Write a package with an endpoint, a hook, a route and tests, to begin with."""
    written = write_package(name, folder)
    for path in files_of(name):
        print_line(f"wrote {written / path}")
    print_line(f"next: pip install -e {written} && pytest {written} && hubbub plugin ls")


@group.command("enable")
def enable(name: str, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Let a plugin work again, now and after a restart. Exit 1 when it fails again."""
    _switch(name, "enable", url, token, as_json=as_json)


@group.command("disable")
def disable(
    name: str, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """Let a plugin work no longer, now and after a restart."""
    _switch(name, "disable", url, token, as_json=as_json)


def _switch(name: str, how: str, url: str, token: str | None, *, as_json: bool) -> None:
    with HubClient(url, token) as hub:
        state = hub.post(f"/api/v1/plugins/{part(name)}/{how}", timeout_s=SWITCH_S)
    reason = f": {clean(state['reason'])}" if state.get("reason") else ""
    line = f"plugin {clean(state.get('name'))} is {clean(state.get('state'))}{reason}"
    show_answer(state, line, as_json=as_json)
    if how == "enable" and state.get("state") != "up":
        raise typer.Exit(FAILED)


def _states(url: str, token: str | None) -> list[dict[str, Any]] | None:
    """Return what a running hub says of its plugins; None when none can be asked."""
    try:
        with HubClient(url, token, timeout_s=TIMEOUT_S) as hub:
            return hub.items("/api/v1/plugins", 1000)
    except CommandError as error:
        note(f"hubbub: states are unknown: {error.message}")
        return None
