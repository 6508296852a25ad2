"""KenkoGo: applications register over WebSocket or Socket.IO, are sent messages, and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubbub import Adapter, Route, hookimpl

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from typer import Typer

__all__ = ["adapters", "cli_commands", "routes", "tables"]


@hookimpl
def adapters() -> Sequence[Adapter]:
    """Give the adapter."""
    from hubbub_kenko.adapter import KenkoAdapter  # noqa: PLC0415  # only where a hub runs

    return [KenkoAdapter()]


@hookimpl
def routes() -> Sequence[Route]:
    """Give the default wiring: chat that no route takes goes to whoever takes anything."""
    from hubbub_kenko.wiring import ROUTES  # noqa: PLC0415

    return ROUTES


@hookimpl
def tables() -> Sequence[type[SQLModel]]:
    """Give the history of applications."""
    from hubbub_kenko.admin import TABLES  # noqa: PLC0415
    from hubbub_kenko.history import KenkoAppRow  # noqa: PLC0415

    return [KenkoAppRow, *TABLES]


@hookimpl
def cli_commands(app: Typer) -> None:
    """Give `hubbub simulate kenko`."""
    from hubbub_kenko.commands import add_to  # noqa: PLC0415

    add_to(app)
