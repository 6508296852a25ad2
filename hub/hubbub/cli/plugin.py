"""`hubbub plugin`: what is installed, and how it does."""

from __future__ import annotations

from typing import Any, Final

import typer

from hubbub.cli.client import HubClient
from hubbub.cli.errors import CommandError
from hubbub.cli.options import DEFAULT_URL, AsJson, Token, Url
from hubbub.cli.output import note, print_json, print_table

__all__ = ["group"]

group = typer.Typer(
    help="Plugins: what is installed and what the hub makes of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TIMEOUT_S: Final = 2.0


@group.callback()
def plugins() -> None:
    """Plugins: what is installed and what the hub makes of it."""


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
    print_table(
        ("NAME", "DISTRIBUTION", "VERSION", "STATE", "REASON"),
        [
            (
                row["name"],
                row.get("distribution"),
                row.get("version"),
                row.get("state") or "installed",
                row.get("reason") or "",
            )
            for row in rows.values()
        ],
        empty="no plugin is installed",
    )


def _states(url: str, token: str | None) -> list[dict[str, Any]] | None:
    """Return what a running hub says of its plugins; None when none can be asked."""
    try:
        with HubClient(url, token, timeout_s=TIMEOUT_S) as hub:
            return hub.items("/api/v1/plugins", 1000)
    except CommandError as error:
        note(f"hubbub: states are unknown: {error.message}")
        return None
