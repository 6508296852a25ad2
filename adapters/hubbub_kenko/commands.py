"""Commands of KenkoGo: `hubbub simulate kenko`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import typer

from hubbub.cli.groups import group_of

__all__ = ["add_to"]

URL: Final = "http://127.0.0.1:17680"


def _websocket(url: str) -> str:
    """Return where applications connect: a hub's address, or that of a WebSocket."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path or "/", parts.query, ""))


def add_to(app: typer.Typer) -> None:
    """Add the command to `hubbub`."""
    group_of(app, "simulate", "Fake peers of a protocol.").command("kenko")(simulate)


def simulate(
    name: Annotated[str, typer.Option(help="Name to register with.")] = "echo",
    count: Annotated[
        int, typer.Option(min=0, help="Messages to answer before it leaves; 0 is for ever.")
    ] = 0,
    say: Annotated[
        str, typer.Option(help="Something to say itself, once it has been started.")
    ] = "",
    ack: Annotated[bool, typer.Option(help="Acknowledge every message.")] = False,
    url: Annotated[
        str,
        typer.Option("--url", envvar="HUBBUB_URL", help="Where the hub is.", callback=_websocket),
    ] = URL,
    access_token: Annotated[
        str, typer.Option(envvar="KENKO_ACCESS_TOKEN", help="What `access_token` of hub.toml says.")
    ] = "",
) -> None:
    """Be an application that registers and answers every message with what it says."""
    from hubbub_kenko.simulate import Application, SimulationError  # noqa: PLC0415

    application = Application(
        url, name=name, token=access_token, count=count, first_words=say, acks=ack, tell=typer.echo
    )
    try:
        asyncio.run(application.run())
    except KeyboardInterrupt:
        typer.echo("left")
    except (SimulationError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
