"""`hubbub publish`: put one message into the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from hubbub.cli.client import HubClient
from hubbub.cli.options import DEFAULT_URL, AsJson, Data, Token, Url, read_data
from hubbub.cli.output import note, print_json, print_line

__all__ = ["Expires", "Key", "Priority", "Subject", "To", "Type", "envelope_body", "publish"]

Subject = Annotated[str, typer.Argument(help="Where it belongs, such as orders.eu.created.")]
Type = Annotated[
    str | None, typer.Option("--type", help="Type of the data; hubbub.event.v1 without it.")
]
Key = Annotated[
    str | None, typer.Option("--key", help="Messages of one key stay in order at each endpoint.")
]
Priority = Annotated[
    int | None, typer.Option("--priority", min=0, max=9, help="0 to 9, 9 first; 5 without it.")
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to", metavar="ADDRESS", help="Go there, past the routing table; may be repeated."
    ),
]
Expires = Annotated[
    str | None,
    typer.Option("--expires", help="When it is worth nothing any more: a time, or 30s, 10m, 1h."),
]


def envelope_body(subject: str, data: str | None, **members: object) -> dict[str, object]:
    """Return the short form of an envelope; members that are None or empty are left out."""
    given = {name: value for name, value in members.items() if value is not None and value != []}
    return {"subject": subject, "data": read_data(data), **given}


def publish(  # noqa: PLR0913  # what an envelope can say
    subject: Subject,
    *,
    data: Data = None,
    type_: Type = None,
    key: Key = None,
    priority: Priority = None,
    reply_to: Annotated[
        str | None, typer.Option("--reply-to", help="Address for answers, or id it answers.")
    ] = None,
    to: To = None,
    expires: Expires = None,
    envelope_id: Annotated[
        str | None, typer.Option("--id", help="Its id; the same id again is the same message.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Names this act, so that it may be repeated."),
    ] = None,
    durable: Annotated[
        bool | None,
        typer.Option("--durable/--volatile", help="Store it, or only pass it on."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Publish one message; returns when it is safe."""
    body = envelope_body(
        subject,
        data,
        type=type_,
        key=key,
        priority=priority,
        reply_to=reply_to,
        to=to,
        expires=expires,
        id=envelope_id,
        idempotency_key=idempotency_key,
        durable=durable,
    )
    with HubClient(url, token) as hub:
        answer = hub.post("/api/v1/envelopes", body)
    if as_json:
        print_json(answer)
        return
    number = answer["deliveries"]
    what = f"{number} deliver{'y' if number == 1 else 'ies'}"
    print_line(f"{answer['id']} {answer['outcome']}, {what}, trace {answer['trace_id']}")
    if answer["outcome"] == "unrouted":
        note(
            f"hubbub: nobody got it; `hubbub routes test {subject}` shows which routes match, "
            f"`hubbub explain {answer['id']}` why"
        )
