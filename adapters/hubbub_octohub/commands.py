"""Commands: `hubbub user ...` and `hubbub simulate octohub`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hubbub.cli.groups import group_of
from hubbub.cli.options import DEFAULT_URL, AsJson, Limit, Token, Url
from hubbub_octohub.config import SHIPPED_API_KEY

__all__ = ["add_to"]

USERS = "/api/octohub/users"


def add_to(app: typer.Typer) -> None:
    """Add the commands to `hubbub`."""
    app.add_typer(users, name="user")
    group_of(app, "simulate", "Fake peers of a protocol.").command("octohub")(simulate)


users = typer.Typer(
    help="Users of OctoHub, who log in with an email address and a password.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@users.command("create")
def create(
    email: Annotated[str, typer.Argument(help="Email address; in any case of letters.")],
    password_file: Annotated[
        Path,
        typer.Option(
            "--password-file",
            metavar="FILE",
            allow_dash=True,
            help="File whose first line is the password; - for standard input.",
        ),
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Add a user to a running hub."""
    from hubbub.cli.client import HubClient  # noqa: PLC0415  # commands import what they need
    from hubbub.cli.errors import CommandError  # noqa: PLC0415
    from hubbub.cli.output import clean, print_json, print_line  # noqa: PLC0415

    try:
        text = sys.stdin.read() if str(password_file) == "-" else password_file.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        raise CommandError(f"--password-file {password_file}: {error}") from error
    body = {"email": email, "password": text.partition("\n")[0].rstrip("\r")}
    with HubClient(url, token) as hub:
        user = hub.post(USERS, body)
    if as_json:
        print_json(user)
    else:
        print_line(f"{clean(user['id'])} {clean(user['email'])}")


@users.command("ls")
def ls(
    limit: Limit = 1000, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """List users, the oldest first."""
    from hubbub.cli.client import HubClient  # noqa: PLC0415
    from hubbub.cli.output import print_json, print_table  # noqa: PLC0415

    with HubClient(url, token) as hub:
        found = hub.items(USERS, limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("ID", "EMAIL", "CREATED"),
        [(each.get("id"), each.get("email"), each.get("created_at")) for each in found],
        empty="no user yet; `hubbub user create EMAIL --password-file FILE` adds one",
    )


@users.command("delete")
def delete(
    user: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="Who.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Remove a user; what was logged in with it ends at once."""
    from hubbub.cli.client import HubClient, part  # noqa: PLC0415
    from hubbub.cli.output import clean, print_line  # noqa: PLC0415

    with HubClient(url, token) as hub:
        hub.call("DELETE", f"{USERS}/{part(user)}")
    print_line(f"user {clean(user)} is gone")


def simulate(
    role: Annotated[
        str, typer.Option(help="node, asker, or both: a node, and somebody who gives it work")
    ] = "both",
    count: Annotated[
        int, typer.Option(min=0, help="Tasks to do or to ask for; a node's 0 is for ever.")
    ] = 3,
    pc_id: Annotated[str, typer.Option("--pc-id", help="Id of the node.")] = "node_simulated",
    key: Annotated[
        str, typer.Option("--key", envvar="OCTOHUB_SIGNATURE_KEY", help="signature_key.")
    ] = SHIPPED_API_KEY,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for results.")] = 60.0,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Be a node that does `default`, `echo` and `sleep`, and somebody who asks it to."""
    import httpx2  # noqa: PLC0415
    from websockets.exceptions import WebSocketException  # noqa: PLC0415

    from hubbub_octohub.simulate import SimulationError, asker, both, node  # noqa: PLC0415

    if role not in ("node", "asker", "both"):
        raise typer.BadParameter("write node, asker or both", param_hint="--role")
    try:
        if role == "node":
            node(url, key, pc_id=pc_id, count=count, say=typer.echo)
        elif role == "asker":
            asker(url, token, count=count, timeout_s=timeout, say=typer.echo)
        else:
            both(url, key, token, pc_id=pc_id, count=count, timeout_s=timeout, say=typer.echo)
    except (SimulationError, httpx2.HTTPError, WebSocketException, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
