"""`hubbub tail`: watch messages as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
import typer

from hubbub.cli.client import HubClient, UnreachableError
from hubbub.cli.errors import ApiError
from hubbub.cli.options import DEFAULT_URL, AsJson, Token, Url
from hubbub.cli.output import clean, data_of, note, print_json, print_line, shorten, terminal_width

__all__ = ["tail"]

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0


def tail(
    pattern: Annotated[
        str, typer.Argument(help="Subject pattern: * is one token, a final > the rest.")
    ] = ">",
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after this many.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Print messages as they come. One a line; with --json whole envelopes. Ctrl-C ends it."""
    width = terminal_width()
    with HubClient(url, token) as hub:
        for seen, envelope in enumerate(_envelopes(hub, pattern), start=1):
            if as_json:
                print_json(envelope, one_line=True)
            else:
                line = one_line(envelope)
                print_line(line if width is None else shorten(line, width))
            if seen == count:
                return


def one_line(envelope: dict[str, Any]) -> str:
    """Write an envelope as one line: time, subject, source, type, data."""
    moment = str(envelope.get("time", ""))[11:23]
    return "  ".join(
        clean(text)
        for text in (
            moment,
            envelope.get("subject"),
            envelope.get("source"),
            envelope.get("type"),
            data_of(envelope),
        )
    )


def _envelopes(hub: HubClient, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield envelopes for ever; a lost connection is made again where it ended."""
    last: str | None = None
    wait_s = FIRST_WAIT_S
    while True:
        lost = "the stream ended"
        try:
            for event, event_id, data in hub.events(pattern, last):
                wait_s = FIRST_WAIT_S
                last = event_id or last
                if event == "envelope":
                    yield msgspec.json.decode(data)
                elif event == "gap":
                    note("hubbub: some messages were missed; `hubbub explain` knows durable ones")
        except (UnreachableError, ApiError) as error:
            final = isinstance(error, ApiError) and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
            if final or not hub.streaming:
                raise
            lost = error.message
        note(f"hubbub: {lost}; trying again in {wait_s:g} s")
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)
