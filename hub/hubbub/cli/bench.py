"""`hubbub bench`: the measurements of a checkout, which no package brings along."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hubbub.cli.errors import CommandError

__all__ = ["bench", "find_checkout"]


def bench(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGS",
            help="Names of measurements and options; `hubbub bench -- --help` lists them.",
        ),
    ] = None,
) -> None:
    """Measure the hub beside its bare parts, from a checkout. Starts hubs of its own."""
    root = find_checkout(Path(__file__).parents[3], Path.cwd())
    if find_spec("psutil") is None:
        raise CommandError(
            "measuring needs what developers have; run `make install` in " + str(root)
        )
    done = subprocess.run(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", "tests.bench", *(arguments or ())],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    raise typer.Exit(done.returncode)


def find_checkout(*folders: Path) -> Path:
    """Return the first folder that has the measurements.

    Raises:
        CommandError: none has.
    """
    for folder in folders:
        if (folder / "tests" / "bench" / "__main__.py").is_file():
            return folder
    raise CommandError(
        "the measurements are not in the installed package; clone the source, run `make install` "
        "there, and `.venv/bin/hubbub bench` in that folder"
    )
