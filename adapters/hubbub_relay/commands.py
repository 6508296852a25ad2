"""Commands of the relay: `hubbub relay import` and `hubbub simulate relay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from hubbub.cli.groups import group_of

__all__ = ["add_to"]

URL: Final = "http://127.0.0.1:17680"
PREFIX: Final = "/api/relay"
KEY: Final = "lynker_relay_secret_2025"


def _endpoints(url: str) -> str:
    """Return where the relay's endpoints begin: a hub's address means its usual prefix."""
    bare = url.rstrip("/")
    return bare if urlsplit(bare).path else bare + PREFIX


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="HUBBUB_URL",
        help="Where the hub is, or where the relay's endpoints begin.",
        callback=_endpoints,
    ),
]
Key = Annotated[str, typer.Option("--key", envvar="RELAY_API_KEY", help="API key.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `hubbub`."""
    group_of(app, "relay", "The relay adapter.").command("import")(import_files)
    group_of(app, "simulate", "Fake peers of a protocol.").command("relay")(simulate)


def import_files(
    log: Annotated[
        Path, typer.Option("--log", exists=True, dir_okay=False, help="conversation_log.jsonl")
    ],
    state: Annotated[
        Path | None, typer.Option("--state", exists=True, dir_okay=False, help="task_state.json")
    ] = None,
    url: Url = URL,
    token: Annotated[
        str,
        typer.Option("--token", envvar="HUBBUB_TOKEN", help="API token with the scope admin."),
    ] = "",
    key: Annotated[
        str, typer.Option("--key", envvar="RELAY_API_KEY", help="API key with the scope admin.")
    ] = "",
) -> None:
    """Import the files of the original relay into a running hub; again adds nothing."""
    import httpx2  # noqa: PLC0415

    from hubbub_relay.importing import batches, fold  # noqa: PLC0415

    with log.open("rb") as lines:
        folded = fold(lines, state.read_bytes() if state else None)
    headers = {"X-Relay-API-Key": key} if key else {"Authorization": f"Bearer {token}"}
    totals = dict.fromkeys(("kept", "known", "queued"), 0)
    with httpx2.Client(headers=headers, timeout=300, trust_env=False) as client:
        for body in batches(folded):
            try:
                answer = client.post(f"{url.rstrip('/')}/import", content=body)
            except httpx2.HTTPError as error:
                typer.echo(f"{url} does not answer: {error}", err=True)
                raise typer.Exit(1) from error
            if answer.status_code != 200:  # noqa: PLR2004
                typer.echo(f"{answer.status_code}: {answer.text}", err=True)
                raise typer.Exit(1)
            for name, value in totals.items():
                totals[name] = value + int(answer.json()[name])
    typer.echo(
        f"{totals['kept']} records imported, {totals['known']} known already, "
        f"{totals['queued']} tasks wait again, {folded.bad_lines} lines not readable"
    )
    if folded.bad_state:
        typer.echo("the state file is not readable; states come from the log", err=True)


def simulate(
    role: Annotated[
        str, typer.Option(help="worker, master, or both: one process that is the two of them")
    ] = "both",
    count: Annotated[
        int, typer.Option(min=0, help="Tasks to do or to send; a worker's 0 is for ever.")
    ] = 3,
    url: Url = URL,
    key: Key = KEY,
    timeout: Annotated[float, typer.Option(help="Seconds a master waits for results.")] = 60.0,
) -> None:
    """Be a master that sends tasks, and a worker that echoes them."""
    import httpx2  # noqa: PLC0415

    from hubbub_relay.simulate import SimulationError, both, master, worker  # noqa: PLC0415

    if role not in ("worker", "master", "both"):
        raise typer.BadParameter("write worker, master or both", param_hint="--role")
    try:
        if role == "worker":
            worker(url, key, count=count, say=typer.echo)
        elif role == "master":
            master(url, key, count=count, timeout_s=timeout, say=typer.echo)
        else:
            both(url, key, count=count, timeout_s=timeout, say=typer.echo)
    except (SimulationError, httpx2.HTTPError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
