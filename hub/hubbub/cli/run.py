"""`hubbub run`: start the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from hubbub.cli.options import ConfigFile, Overrides

__all__ = ["run"]


def run(
    config: ConfigFile = None,
    overrides: Overrides = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="Start without plugins of third parties.")
    ] = False,
) -> None:
    """Start the hub in the foreground. SIGTERM or Ctrl-C stops it, a second one at once."""
    from hubbub.config import load_config
    from hubbub.hub import run as serve

    settings = load_config(config, overrides=overrides or [])
    raise typer.Exit(serve(settings, safe=safe))
