"""The table `[plugins.files]` of hub.toml."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from hubbub.config import Settings, Size

__all__ = ["FilesSettings"]


def _named(roots: dict[str, str]) -> dict[str, str]:
    for name in roots:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError(f"{name!r} is no name of a root; use letters, digits, '-' and '_'")
    return roots


class FilesSettings(Settings):
    """Which folders are shown, and whether anything may be changed there."""

    roots: Annotated[dict[str, str], AfterValidator(_named)] = Field(
        default={
            "data": "{data_dir}",
            "plugins": "{data_dir}/plugins",
            "logs": "{data_dir}/logs",
        },
        description="Folders that are shown, by name; `{data_dir}` is `hub.data_dir`.",
    )
    writable: bool = Field(default=False, description="Whether files may be changed.")
    max_file: Size = Field(
        default=10 * 1024**2, ge=1, description="Largest file that is shown whole, or written."
    )
    hidden: tuple[str, ...] = Field(
        default=(),
        description='More names that are never shown, such as "*.csv"; letter case does not '
        "matter.",
    )
