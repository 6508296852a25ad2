"""`hubbub dlq`: dead letters, which nobody took."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from hubbub.cli.answers import Json, texts_in
from hubbub.cli.client import HubClient, part
from hubbub.cli.errors import USAGE, CommandError
from hubbub.cli.listing import Columns, show_list, show_one
from hubbub.cli.options import DEFAULT_URL, AsJson, Data, Limit, Token, Url, read_data
from hubbub.cli.output import clean, note, print_json, print_line

__all__ = ["group"]

group = typer.Typer(
    help="Dead letters: deliveries that were given up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

REPLAY_TIMEOUT_S: Final = 60.0
"""How long the hub may take to begin a replay; what it has not done by then goes on behind."""

COLUMNS: Final[Columns] = {
    "ID": "id",
    "SUBJECT": "subject",
    "ENDPOINT": lambda each: each.get("endpoint") or " ".join(texts_in(each, "pool")),
    "ROUTE": "route",
    "REASON": "reason",
    "ATTEMPTS": "attempts",
    "DIED": "updated_at",
}

DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="Id of the delivery.")]
ByEndpoint = Annotated[
    str | None, typer.Option("--endpoint", metavar="ADDRESS", help="For this endpoint.")
]
ByRoute = Annotated[str | None, typer.Option("--route", help="By this route.")]
ByReason = Annotated[str | None, typer.Option("--reason", help="Dead for this reason.")]
BySubject = Annotated[str | None, typer.Option("--subject", help="Of this subject or pattern.")]
Since = Annotated[str | None, typer.Option("--since", help="Not older than this time.")]
Until = Annotated[str | None, typer.Option("--until", help="Not newer than this time.")]


@group.command("ls")
def ls(  # noqa: PLR0913  # the filters of the list
    *,
    endpoint: ByEndpoint = None,
    route: ByRoute = None,
    reason: ByReason = None,
    subject: BySubject = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List dead deliveries, newest first."""
    with HubClient(url, token) as hub:
        found = hub.items(
            "/api/v1/deliveries",
            limit,
            outcome="dead",
            endpoint=endpoint,
            route=route,
            reason=reason,
            subject=subject,
            since=since,
            until=until,
        )
    show_list(found, COLUMNS, as_json=as_json, empty="no dead letters")


@group.command("show")
def show(
    delivery_id: DeliveryId, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """Show one delivery and its message."""
    with HubClient(url, token) as hub:
        delivery = hub.get(f"/api/v1/deliveries/{part(delivery_id)}")
        found = hub.get(f"/api/v1/envelopes/{part(str(delivery['envelope_id']))}")
    if as_json:
        print_json({"delivery": delivery, "envelope": found["envelope"]})
        return
    show_one(delivery, as_json=False)
    print_line()
    print_json(found["envelope"])


@group.command("replay")
def replay(  # noqa: PLR0913  # one, or many by filter
    delivery_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Replay this one.")
    ] = None,
    *,
    data: Data = None,
    endpoint: ByEndpoint = None,
    route: ByRoute = None,
    reason: ByReason = None,
    subject: BySubject = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0, help="At most this many a second.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would be replayed.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Try dead deliveries again: one by its id, or all that a filter finds.

    With --data one is sent again as a new message with that data.
    """
    members: dict[str, object] = {
        "endpoint": endpoint,
        "route": route,
        "reason": reason,
        "subject": subject,
        "since": since,
        "until": until,
        "rate": rate,
    }
    wanted = {name: value for name, value in members.items() if value is not None}
    if delivery_id is None:
        answer = _replay_many(url, token, wanted, data=data, dry_run=dry_run)
    elif wanted or dry_run:
        raise CommandError("give an id or filters, not both", exit_code=USAGE)
    else:
        body = None if data is None else {"data": read_data(data)}
        with HubClient(url, token) as hub:
            answer = hub.post(f"/api/v1/deliveries/{part(delivery_id)}/replay", body)
    if as_json:
        print_json(answer)
    elif delivery_id is None:
        refused = f", {answer['refused']} refused" if answer.get("refused") else ""
        print_line(f"{answer['matched']} matched, {answer['replayed']} replayed{refused}")
        if not dry_run and answer["replayed"] < answer["matched"] and not refused:
            note("hubbub: the rest is replayed in the background")
    elif data is None:
        print_line(f"replayed as delivery {clean(answer.get('id'))}")
    else:
        print_line(f"sent again as message {clean(answer.get('envelope_id'))}")


def _replay_many(
    url: str, token: str | None, wanted: dict[str, object], *, data: str | None, dry_run: bool
) -> Json:
    if data is not None:
        raise CommandError("--data is for one delivery; give its id", exit_code=USAGE)
    if not wanted.keys() - {"rate"}:
        raise CommandError(
            "say which: an ID, or --endpoint, --route, --reason, --subject, --since or --until",
            exit_code=USAGE,
        )
    with HubClient(url, token, timeout_s=REPLAY_TIMEOUT_S) as hub:
        return hub.post("/api/v1/deliveries/replay", {**wanted, "dry_run": dry_run})


@group.command("drop")
def drop(delivery_id: DeliveryId, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Take a dead letter off the list for good; the audit keeps what it was."""
    with HubClient(url, token) as hub:
        hub.call("DELETE", f"/api/v1/deliveries/{part(delivery_id)}")
    print_line(f"delivery {clean(delivery_id)} is dropped")
