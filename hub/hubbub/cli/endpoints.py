"""`hubbub endpoints`: who is here."""

from __future__ import annotations

from typing import Annotated

import typer

from hubbub.cli.answers import object_in, texts_in
from hubbub.cli.client import HubClient, part
from hubbub.cli.options import DEFAULT_URL, AsJson, Limit, Token, Url
from hubbub.cli.output import print_json, print_table

__all__ = ["endpoints"]


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
    if as_json:
        print_json(found if address is None else found[0])
        return
    print_table(
        ("ADDRESS", "STATE", "IN FLIGHT", "WAITING", "LABELS", "ACCEPTS"),
        [
            (
                each.get("address"),
                each.get("state"),
                each.get("in_flight"),
                each.get("waiting"),
                " ".join(f"{key}={value}" for key, value in object_in(each, "labels").items()),
                " ".join(texts_in(each, "accepts") or ["anything"]),
            )
            for each in found
        ],
        empty="nobody is known; endpoints come with adapters and `/api/v1/stream`",
    )
