"""`hubbub version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from hubbub.cli.options import AsJson
from hubbub.cli.output import print_json, print_line

__all__ = ["version"]


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    try:
        number = installed("hubbub")
    except PackageNotFoundError:
        number = "0+unknown"
    if as_json:
        print_json(
            {
                "version": number,
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
            }
        )
    else:
        print_line(f"hubbub {number}")
