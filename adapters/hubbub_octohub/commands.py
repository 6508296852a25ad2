"""Commands: `hubbub user ...` and `hubbub simulate octohub`."""

from __future__ import annotations

import typer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `hubbub`."""
    del app
