"""How commands print: JSON for programs, tables for people, nothing that moves a terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = [
    "clean",
    "data_of",
    "note",
    "print_json",
    "print_line",
    "print_table",
    "quiet_logs",
    "shorten",
]

GAP: Final = 2
"""Spaces between the columns of a table that is not on a terminal."""


def print_line(text: str = "") -> None:
    """Print one line, at once, so that a pipe sees it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell something beside the data, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print a value as JSON, for programs."""
    print_line(json.dumps(value, ensure_ascii=False, indent=None if one_line else 2))


def clean(value: object) -> str:
    """Write a value from outside as text that cannot move the cursor or break a line."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def data_of(envelope: Mapping[str, Any]) -> object:
    """Return the data of an envelope as one value; bytes as `image/png;base64,iVBOR...`."""
    if "data_base64" in envelope:
        return f"{envelope.get('datacontenttype')};base64,{envelope['data_base64']}"
    return envelope.get("data")


def shorten(text: str, width: int) -> str:
    """Cut a text to a number of columns."""
    if _width(text) <= width:
        return text
    kept, used = "", 1
    for sign in text:
        used += _width(sign)
        if used > width:
            break
        kept += sign
    return kept + "…"


def terminal_width() -> int | None:
    """Return the columns of the terminal; None when standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows below their heads.

    Args:
        empty: What to say, on standard error, when there is no row.
    """
    cells = [[clean(value) for value in row] for row in rows]
    if not cells:
        note(empty)
    elif sys.stdout.isatty():
        _print_rich(columns, cells)
    else:
        for line in [list(columns), *cells]:
            print_line(_aligned(line, columns, cells))


def _aligned(line: list[str], columns: Sequence[str], cells: list[list[str]]) -> str:
    widths = [
        max(_width(text) for text in [head, *(row[place] for row in cells)]) + GAP
        for place, head in enumerate(columns)
    ]
    padded = [text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)]
    return "".join(padded).rstrip()


def _print_rich(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in columns:
        table.add_column(head, overflow="fold")
    for row in cells:
        table.add_row(*(Text(text) for text in row))
    Console(no_color="NO_COLOR" in os.environ or None).print(table)


def _width(text: str) -> int:
    """Return the columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def quiet_logs() -> None:
    """Keep the rooms of the hub from logging; what went wrong, the command tells itself."""
    import structlog

    structlog.configure(
        processors=[],
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
