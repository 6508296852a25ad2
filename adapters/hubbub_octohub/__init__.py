"""OctoHub nodes: workers that get a signed address, connect, take tasks and return results."""

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
    from hubbub_octohub.adapter import OctohubAdapter  # noqa: PLC0415  # only where a hub runs

    return [OctohubAdapter()]


@hookimpl
def routes() -> Sequence[Route]:
    """Give the wiring: a task that came in here goes to a free node, unless a route says else."""
    return [
        Route(
            name="octohub: tasks to a free node",
            match="octohub.task.>",
            to=("octohub.node.*",),
            deliver="one",
            fallback=True,
        )
    ]


@hookimpl
def tables() -> Sequence[type[SQLModel]]:
    """Give users, what administrators said of nodes, and what is remembered for a while."""
    from hubbub_octohub.records import OctohubNodeRow, OctohubUserRow  # noqa: PLC0415
    from hubbub_octohub.remembered import OctohubOnceRow, OctohubSeenRow  # noqa: PLC0415

    return [OctohubNodeRow, OctohubUserRow, OctohubOnceRow, OctohubSeenRow]


@hookimpl
def cli_commands(app: Typer) -> None:
    """Give `hubbub user` and `hubbub simulate octohub`."""
    from hubbub_octohub.commands import add_to  # noqa: PLC0415

    add_to(app)
