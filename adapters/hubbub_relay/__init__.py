"""The relay ("Conversation Bus"): tasks and messages over HTTP, a log, workers that lease."""

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
    from hubbub_relay.adapter import RelayAdapter  # noqa: PLC0415  # only where a hub runs

    return [RelayAdapter()]


@hookimpl
def routes() -> Sequence[Route]:
    """Give the seed's wiring: what is for a name goes to that name, unless a route says else."""
    return [
        Route(
            name="relay: tasks to the name they are for",
            match="relay.*.task.>",
            to=("relay.{subject.1}",),
            deliver="one",
            fallback=True,
        ),
        Route(
            name="relay: messages to the name they are for",
            match="relay.*.message",
            to=("relay.{subject.1}",),
            fallback=True,
        ),
    ]


@hookimpl
def tables() -> Sequence[type[SQLModel]]:
    """Give the log, the posts that are still to be made, and what is to be made up for."""
    from hubbub_relay.events import RelayCallbackRow, RelayEventRow  # noqa: PLC0415
    from hubbub_relay.sagas import RelaySagaRow  # noqa: PLC0415

    return [RelayEventRow, RelayCallbackRow, RelaySagaRow]


@hookimpl
def cli_commands(app: Typer) -> None:
    """Give `hubbub relay import` and `hubbub simulate relay`."""
    from hubbub_relay.commands import add_to  # noqa: PLC0415

    add_to(app)
