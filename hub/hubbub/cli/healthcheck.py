"""`hubbub healthcheck`: for containers and service managers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, cast

import typer

from hubbub.cli.answers import Json, texts_in
from hubbub.cli.client import HubClient
from hubbub.cli.options import DEFAULT_URL, AsJson, Url
from hubbub.cli.output import clean, note, print_json, print_line

__all__ = ["healthcheck"]

TIMEOUT_S: Final = 5.0


def healthcheck(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Tell whether the hub is ready. Exit 0 when it is, 1 when it is not or not there."""
    with HubClient(url, timeout_s=TIMEOUT_S, anonymous=True) as hub:
        status, body = hub.status("/readyz")
    ready = status == HTTPStatus.OK
    if as_json:
        print_json({"ready": ready, "status": status, "body": body})
    elif ready:
        print_line("ready")
    else:
        note(f"hubbub: not ready ({status}): {_culprits(body)}")
    raise typer.Exit(0 if ready else 1)


def _culprits(body: object) -> str:
    """Return what keeps the hub from being ready."""
    if not isinstance(body, dict):
        return clean(body)
    answer = cast("Json", body)
    return clean("; ".join(texts_in(answer, "culprits")) or answer)
