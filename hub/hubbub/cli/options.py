"""Options that many commands have, and how their values are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from hubbub.cli.errors import USAGE, CommandError

__all__ = [
    "DEFAULT_URL",
    "AsJson",
    "ConfigFile",
    "Data",
    "Limit",
    "Overrides",
    "Token",
    "Url",
    "read_data",
    "read_labels",
]

DEFAULT_URL: Final = "http://127.0.0.1:17680"
"""Where a hub listens when nobody said anything else."""

Url = Annotated[str, typer.Option("--url", envvar="HUBBUB_URL", help="Address of the hub.")]

Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="HUBBUB_TOKEN",
        show_envvar=True,
        help="API token; without it, admin.token of the local data directory.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings; without it, hub.toml in the working directory, if it is there.",
    ),
]

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B.C=VALUE", help="A setting stronger than the file; may be repeated."
    ),
]

Data = Annotated[
    str | None,
    typer.Option("--data", metavar="JSON", help="JSON; @FILE reads a file, - standard input."),
]

Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]


def read_data(text: str | None, *, option: str = "--data") -> msgspec.Raw:
    """Read JSON given as text, `@file` or `-`; its bytes stay as they are.

    Raises:
        CommandError: no such file, or no JSON.
    """
    if text is None:
        return msgspec.Raw(b"null")
    try:
        if text == "-":
            data = sys.stdin.buffer.read()
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            data = text.encode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise CommandError(
            f"cannot read the file of {option}, {text[1:]}: {error.strerror}", exit_code=USAGE
        ) from error
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise CommandError(
            f"{option} is not JSON: {error}; a text needs its quotes: {option} '\"hello\"'",
            exit_code=USAGE,
        ) from error
    return msgspec.Raw(data)


def read_labels(pairs: list[str] | None) -> dict[str, str]:
    """Read `key=value` pairs.

    Raises:
        CommandError: a pair without `=`.
    """
    labels: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CommandError(f"--label {pair!r} is no key=value", exit_code=USAGE)
        labels[key] = value
    return labels
