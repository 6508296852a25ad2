"""The command line: `hubbub`. One file a command; heavy rooms are imported where they are used."""

from __future__ import annotations

from hubbub.cli.app import main

__all__ = ["main"]
