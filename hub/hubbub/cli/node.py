"""`hubbub node`: do tasks of a hub that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hubbub.cli.errors import USAGE, CommandError
from hubbub.cli.options import DEFAULT_URL, Url, read_labels

__all__ = ["group"]

group = typer.Typer(
    help="A node: does tasks of a hub, and loses no result.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@group.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]  # keeps `run` a command of its own
    """A node: does tasks of a hub, and loses no result."""


@group.command("run")
def run(  # noqa: PLR0913  # what a node can say
    handlers: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:HANDLERS",
            help="Mapping of task types to functions, such as a hubbub_node.Handlers.",
        ),
    ],
    *,
    url: Url = DEFAULT_URL,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help="File with the signature_key of the hub's octohub adapter; not needed where the "
            "hub is on this machine and has the shipped one.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", envvar="HUBBUB_NODE_KEY", hidden=True, help="The key itself."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Id of this node; without it, one that is made once and kept."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="What tasks may ask for."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=1000, help="Tasks done at once.")
    ] = 1,
    journal: Annotated[
        Path,
        typer.Option(
            "--journal",
            metavar="FILE",
            help="Where results are kept until the hub has them; one for each node.",
        ),
    ] = Path("hubbub-node.db"),
    grace: Annotated[
        float, typer.Option("--grace", help="Seconds a stop waits for tasks under way.")
    ] = 30.0,
) -> None:
    """Do tasks until SIGTERM or Ctrl-C; a second one ends at once."""
    from hubbub_node.commands import run_node
    from hubbub_node.handlers import HandlersError
    from hubbub_node.journal import JournalError
    from hubbub_node.settings import NodeSettings

    if key_file is not None:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise CommandError(f"cannot read --key-file {key_file}: {error}") from error
    try:
        settings = NodeSettings(
            url=url,
            key=key,
            journal=journal,
            name=name,
            labels=read_labels(label),
            concurrency=concurrency,
            grace_s=grace,
        )
        code = run_node(settings, handlers)
    except (ValueError, HandlersError) as error:
        raise CommandError(str(error), exit_code=USAGE) from error
    except JournalError as error:
        raise CommandError(str(error)) from error
    raise typer.Exit(code)
