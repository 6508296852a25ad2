"""Groups of commands that several adapters add to, such as `simulate`."""

from __future__ import annotations

import typer

__all__ = ["group_of"]


def group_of(app: typer.Typer, name: str, text: str) -> typer.Typer:
    """Return the group of that name, made when it is not there."""
    for known in app.registered_groups:
        instance = known.typer_instance
        if instance is not None and name in (known.name, instance.info.name):
            return instance
    group = typer.Typer(name=name, help=text, no_args_is_help=True)

    @group.callback()
    def groups() -> None:  # pyright: ignore[reportUnusedFunction]
        """Keep this a group, also while it has a single command."""

    groups.__doc__ = text
    app.add_typer(group, name=name)
    return group
