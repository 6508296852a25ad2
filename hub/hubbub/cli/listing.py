"""Answers of the API as commands show them: a table or lines for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from hubbub.cli.answers import Json, texts_in
from hubbub.cli.output import clean, print_json, print_line, print_table

__all__ = ["Columns", "joined", "show_answer", "show_list", "show_one"]

Columns: TypeAlias = Mapping[str, str | Callable[[Json], object]]
"""Head of each column, and the member it shows, or what is made of the whole item."""


def show_list(found: Sequence[Json], columns: Columns, *, as_json: bool, empty: str) -> None:
    """Show items of a list.

    Args:
        empty: What to say, on standard error, when there is none.
    """
    if as_json:
        print_json(found)
        return
    rows = [
        [each.get(shown) if isinstance(shown, str) else shown(each) for shown in columns.values()]
        for each in found
    ]
    print_table(list(columns), rows, empty=empty)


def show_one(thing: Json, *, as_json: bool) -> None:
    """Show one thing, a line for each member that says something."""
    if as_json:
        print_json(thing)
        return
    for name, value in thing.items():
        if value is not None:
            print_line(f"{name:12} {clean(value)}")


def show_answer(answer: Json, line: str, *, as_json: bool) -> None:
    """Show what came of an act, in one line."""
    if as_json:
        print_json(answer)
    else:
        print_line(line)


def joined(name: str) -> Callable[[Json], str]:
    """Return what shows a list of texts in one cell."""
    return lambda each: " ".join(texts_in(each, name))
