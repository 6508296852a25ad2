"""`hubbub token`: who may use the API."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from hubbub.cli.client import HubClient, part
from hubbub.cli.listing import Columns, joined, show_list
from hubbub.cli.options import DEFAULT_URL, AsJson, Limit, Token, Url
from hubbub.cli.output import clean, note, print_json, print_line

__all__ = ["group"]

group = typer.Typer(
    help="API tokens: who may do what.", no_args_is_help=True, rich_markup_mode=None
)


COLUMNS: Final[Columns] = {
    "ID": "id",
    "NAME": "name",
    "SCOPES": joined("scopes"),
    "CREATED": "created_at",
    "EXPIRES": "expires",
    "REVOKED": "revoked_at",
}


@group.command("create")
def create(
    name: Annotated[
        str, typer.Argument(help="Name; messages published with it come from api.NAME.")
    ],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="admin, read, tasks, tasks:PATTERN, publish:PATTERN, subscribe:PATTERN or "
            "direct:PATTERN; may be repeated.",
        ),
    ],
    expires: Annotated[
        str | None, typer.Option("--expires", help="A time, or a duration such as 30d.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once."""
    body: dict[str, object] = {"name": name, "scopes": scope}
    if expires is not None:
        body["expires"] = expires
    with HubClient(url, token) as hub:
        answer = hub.post("/api/v1/tokens", body)
    if as_json:
        print_json(answer)
        return
    print_line(answer["token"])
    until = f", until {answer['expires']}" if answer.get("expires") else ""
    note(
        f"hubbub: token {clean(name)!r} ({answer['id']}{until}) is shown this once; "
        f"`hubbub token revoke {answer['id']}` ends it"
    )


@group.command("ls")
def ls(
    limit: Limit = 1000, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """List all tokens; never what they are, only what they may do."""
    with HubClient(url, token) as hub:
        found = hub.items("/api/v1/tokens", limit)
    show_list(
        found,
        COLUMNS,
        as_json=as_json,
        empty="no token was made; `hubbub token create NAME --scope read` makes one",
    )


@group.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the token.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Make a token worthless, at once."""
    with HubClient(url, token) as hub:
        hub.call("DELETE", f"/api/v1/tokens/{part(token_id)}")
    print_line(f"token {clean(token_id)} is revoked")
