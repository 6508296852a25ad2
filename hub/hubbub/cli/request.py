"""`hubbub request`: ask, and wait for the answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final

import typer

from hubbub.cli.client import HubClient
from hubbub.cli.errors import USAGE, ApiError, CommandError
from hubbub.cli.options import DEFAULT_URL, AsJson, Data, Token, Url
from hubbub.cli.output import data_of, print_json
from hubbub.cli.publish import Key, Priority, Subject, To, Type, envelope_body

__all__ = ["request"]

GRACE_S: Final = 5.0
"""How long after the deadline the hub may take to say so."""


def request(  # noqa: PLR0913  # what an envelope can say
    subject: Subject,
    *,
    data: Data = None,
    timeout: Annotated[
        str, typer.Option("--timeout", help="How long to wait for the answer.")
    ] = "30s",
    type_: Type = None,
    key: Key = None,
    priority: Priority = None,
    to: To = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Send a message and print its answer. The data of it, or with --json all of it."""
    from hubbub.config.units import parse_duration

    try:
        wait_s = parse_duration(timeout)
    except ValueError as error:
        raise CommandError(f"--timeout: {error}", exit_code=USAGE) from None
    body = envelope_body(subject, data, type=type_, key=key, priority=priority, to=to)
    with HubClient(url, token) as hub:
        try:
            answer = hub.post(
                "/api/v1/requests", {**body, "timeout": timeout}, timeout_s=wait_s + GRACE_S
            )
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise CommandError("this hub has no requests; use a newer one") from error
            raise
    print_json(answer if as_json else data_of(answer))
