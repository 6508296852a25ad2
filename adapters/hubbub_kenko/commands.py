"""Commands of KenkoGo: `hubbub simulate kenko`, `hubbub runner run`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit, urlunsplit

import typer

from hubbub.cli.errors import USAGE, CommandError
from hubbub.cli.groups import group_of

__all__ = ["add_to"]

URL: Final = "http://127.0.0.1:17680"


def _websocket(url: str) -> str:
    """Return where applications connect: a hub's address, or that of a WebSocket."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path or "/", parts.query, ""))


def add_to(app: typer.Typer) -> None:
    """Add the commands to `hubbub`."""
    group_of(app, "simulate", "Fake peers of a protocol.").command("kenko")(simulate)
    group_of(app, "runner", "A runner: runs what a hub deploys on it.").command("run")(run)


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


def run(
    url: Annotated[str, typer.Argument(help="Where the hub is, such as https://hub.example.org.")],
    *,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="File with the token that `POST /api/kenko/runners/join-token` gave.",
        ),
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="HUBBUB_RUNNER_TOKEN",
            help="The token itself; others on this machine may see it in the list of processes.",
        ),
    ] = "",
    folder: Annotated[
        Path,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Where packages, processes and their output lie; one for each runner.",
        ),
    ] = Path("hubbub-runner"),
    access_token: Annotated[
        str, typer.Option(envvar="KENKO_ACCESS_TOKEN", help="What `access_token` of hub.toml says.")
    ] = "",
) -> None:
    """Run what a hub deploys here until SIGTERM or Ctrl-C; a second one ends at once."""
    from hubbub_kenko.runner.program import run_runner  # noqa: PLC0415
    from hubbub_kenko.runner.runner import FolderError  # noqa: PLC0415
    from hubbub_kenko.runner.settings import RunnerSettings  # noqa: PLC0415

    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise CommandError(f"cannot read --token-file {token_file}: {error}") from error
    try:
        settings = RunnerSettings(url=url, token=token, folder=folder, access_token=access_token)
    except ValueError as error:
        raise CommandError(str(error), exit_code=USAGE) from error
    try:
        run_runner(settings)
    except FolderError as error:
        raise CommandError(str(error)) from error
