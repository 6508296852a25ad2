"""`hubbub endpoints`: who is here."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from hubbub.cli.answers import object_in, texts_in
from hubbub.cli.client import HubClient, part
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
    limit: Limit = 1000,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints: who is here. Present, paused, or away and waited for."""
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
