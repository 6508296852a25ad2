"""`hubbub endpoints`: who is here; and to free the name of a stream."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from hubbub.cli.answers import object_in, texts_in
from hubbub.cli.client import HubClient, part
from hubbub.cli.errors import USAGE, CommandError
from hubbub.cli.listing import Columns, show_list
from hubbub.cli.options import DEFAULT_URL, AsJson, Limit, Token, Url
from hubbub.cli.output import print_json

__all__ = ["endpoints"]


COLUMNS: Final[Columns] = {
    "ADDRESS": "address",
    "STATE": "state",
    "IN FLIGHT": "in_flight",
    "WAITING": "waiting",
    "LABELS": lambda each: " ".join(f"{k}={v}" for k, v in object_in(each, "labels").items()),
    "ACCEPTS": lambda each: " ".join(texts_in(each, "accepts") or ["anything"]),
}


def endpoints(
    address: Annotated[
        str | None, typer.Argument(metavar="[ADDRESS]", help="Show this one only.")
    ] = None,
    *,
    free: Annotated[
        bool,
        typer.Option(
            "--free",
            help="Free the name of a stream for other tokens: its connection is closed, and what "
            "waits there becomes dead letters.",
        ),
    ] = False,
    limit: Limit = 1000,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints: who is here. Present, paused, or away and waited for."""
    if free:
        _free(address, url=url, token=token, as_json=as_json)
        return
    with HubClient(url, token) as hub:
        if address is None:
            found = hub.items("/api/v1/endpoints", limit)
        else:
            found = [hub.get(f"/api/v1/endpoints/{part(address)}")]
    if as_json and address is not None:
        print_json(found[0])
        return
    show_list(
        found,
        COLUMNS,
        as_json=as_json,
        empty="nobody is known; endpoints come with adapters and `/api/v1/stream`",
    )


def _free(address: str | None, *, url: str, token: str | None, as_json: bool) -> None:
    if address is None:
        raise CommandError(
            "--free needs the ADDRESS of a stream, such as stream.worker-1", exit_code=USAGE
        )
    with HubClient(url, token) as hub:
        freed = hub.call("DELETE", f"/api/v1/endpoints/{part(address)}")
    if as_json:
        print_json(freed)
    else:
        typer.echo(f"{address} is free; {freed['dead_letters']} dead letters")
