"""`hubbub db`: bring the database up to date, copy it, put a copy back, let retention go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubbub.cli.client import HubClient
from hubbub.cli.options import DEFAULT_URL, AsJson, ConfigFile, Overrides, Token, Url
from hubbub.cli.output import print_json, print_line, quiet_logs

__all__ = ["group"]

group = typer.Typer(
    help="The database: upgrade, backup, restore, confirm-clock.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@group.command("upgrade")
def upgrade(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Bring the tables up to date, as a hub does when it starts. No hub may run."""
    from hubbub.store import backups

    backups.upgrade(_url(config, overrides))
    print_line("the database is up to date")


@group.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Copy the database into a new file. A hub may run and goes on meanwhile."""
    from hubbub.store import backups

    size = backups.back_up(_url(config, overrides), file)
    print_line(f"{file}: {size} bytes")


@group.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Put a backup in the place of the database, which is kept beside it. No hub may run."""
    from hubbub.store import backups

    kept = backups.restore(_url(config, overrides), file)
    print_line(f"restored {file}" + (f"; what was there before is {kept}" if kept else ""))


@group.command("confirm-clock")
def confirm_clock(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="What time it is: 2026-01-02T03:04Z.")
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Say what time it is after a far jump of the clock, so that retention goes on."""
    with HubClient(url, token) as hub:
        answer = hub.post("/api/v1/retention/confirm", {"time": time})
    if as_json:
        print_json(answer)
        return
    held = answer["held"]
    print_line(
        f"the hub's clock is right: {answer['time']}"
        + (f"; retention goes on, which was stopped because {held}" if held else "")
    )


def _url(config: Path | None, overrides: list[str] | None) -> str:
    from hubbub.config import load_config

    quiet_logs()
    return load_config(config, overrides=overrides or []).store_url
