"""`hubbub routes`: the routing table of a running hub."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, cast

import msgspec
import typer

from hubbub.cli.answers import Json, objects_in, text_in, texts_in
from hubbub.cli.client import HubClient, part
from hubbub.cli.errors import USAGE, CommandError
from hubbub.cli.listing import Columns, joined, show_answer, show_list
from hubbub.cli.options import DEFAULT_URL, AsJson, Data, Limit, Token, Url
from hubbub.cli.output import clean, print_json, print_line
from hubbub.cli.publish import Key, Subject, Type, envelope_body

__all__ = ["group"]

group = typer.Typer(
    help="The routing table: look at it, try it, change it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


COLUMNS: Final[Columns] = {
    "NAME": "name",
    "MATCH": "match",
    "TO": joined("to"),
    "DELIVER": "deliver",
    "FROM": "origin",
    "FALLBACK": lambda each: "yes" if each.get("fallback") else "",
}


@group.command("ls")
def ls(
    limit: Limit = 1000, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False
) -> None:
    """List all routes, in the order in which they are read."""
    with HubClient(url, token) as hub:
        found = hub.items("/api/v1/routes", limit)
    show_list(
        found,
        COLUMNS,
        as_json=as_json,
        empty="the table is empty; add [[routes]] to hub.toml, or use `hubbub routes put`",
    )


@group.command("test")
def try_route(
    subject: Subject,
    *,
    data: Data = None,
    type_: Type = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show which routes a message would match and what would go where; nothing is sent."""
    with HubClient(url, token) as hub:
        answer = hub.post("/api/v1/routes/test", envelope_body(subject, data, type=type_, key=key))
    if as_json:
        print_json(answer)
        return
    _tell(subject, answer)


def _tell(subject: str, answer: Json) -> None:
    names = [text_in(each, "name") for each in objects_in(answer, "routes")]
    names = names or texts_in(answer, "routes")
    print_line(
        f"{clean(subject)} matches {', '.join(clean(name) for name in names)}"
        if names
        else f"{clean(subject)} matches no route"
    )
    for each in objects_in(answer, "deliveries"):
        ending = f" -> {each['outcome']}" if each.get("outcome") else ""
        reason = f": {clean(each['reason'])}" if each.get("reason") else ""
        pool = " ".join(texts_in(each, "pool"))
        target = clean(each.get("endpoint") or f"one of {pool}")
        print_line(f"  {target} by route {clean(each.get('route'))!r}{ending}{reason}")
    if answer.get("reason"):
        print_line(f"  unrouted: {clean(answer['reason'])}")


@group.command("put")
def put(
    name: Annotated[str, typer.Argument(help="Name of the route.")],
    file: Annotated[
        Path,
        typer.Option("--file", help="The route as JSON, or as TOML when the name ends in .toml."),
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Add a route, or replace the one of this name that came over the API."""
    body = _read_route(file)
    with HubClient(url, token) as hub:
        answer = hub.call("PUT", f"/api/v1/routes/{part(name)}", body=body)
    show_answer(answer, f"route {clean(name)!r} is in the table", as_json=as_json)


def _read_route(file: Path) -> Json:
    """Read a route; of TOML with [[routes]] the only one in it.

    Raises:
        CommandError: no file, or no route in it.
    """
    try:
        data = file.read_bytes()
        if file.suffix == ".toml":
            body: object = tomllib.loads(data.decode("utf-8"))
        else:
            body = msgspec.json.decode(data)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", exit_code=USAGE) from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file} cannot be parsed: {error}", exit_code=USAGE) from error
    match body:
        case dict() if "routes" not in body:
            return cast("Json", body)
        case {"routes": list()} if len(found := objects_in(cast("Json", body), "routes")) == 1:
            return found[0]
        case _:
            raise CommandError(f"{file} holds not exactly one route", exit_code=USAGE)


@group.command("rm")
def rm(
    name: Annotated[str, typer.Argument(help="Name of the route.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Take a route out that came over the API."""
    with HubClient(url, token) as hub:
        hub.call("DELETE", f"/api/v1/routes/{part(name)}")
    print_line(f"route {clean(name)!r} is gone")
