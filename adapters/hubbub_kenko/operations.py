"""What the paths below `/api/kenko` have in common: who may call, errors in their form, pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
from starlette.routing import BaseRoute

from hubbub.errors import HubError, InvalidError
from hubbub.web import (
    OPEN,
    Call,
    Manners,
    Operation,
    Page,
    Parameter,
    Reply,
    Spec,
    in_room,
    operation_routes,
    status_of,
    while_up,
)

__all__ = [
    "PREFIX",
    "Path",
    "Refusal",
    "number_of",
    "numbered",
    "operations",
    "part",
    "place_of",
    "placed",
    "refusal_of",
]

PREFIX: Final = "/api/kenko"
DIGITS: Final = 18
"""Of a number that fits in a column."""

R = TypeVar("R")


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """Why not."""

    code: str
    message: str


class Refusal(msgspec.Struct, forbid_unknown_fields=True):
    """An error as these paths have it."""

    error: Reason


@dataclass(frozen=True, slots=True)
class Path(Generic[R]):
    """A method of a path, and what answers it.

    Attributes:
        is_signed: Whether the URL itself says that the caller may; else a token is needed.
    """

    method: str
    path: str
    handle: Callable[[R, Call], Awaitable[Reply | None]]
    says: str
    spec: Spec
    is_signed: bool = False

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """One of them is needed: `read` to look, else `admin`."""
        if self.is_signed:
            return OPEN
        return ("read",) if self.method == "GET" else ("admin",)


def operations(room: Callable[[], R | None], paths: Iterable[Path[R]]) -> Sequence[BaseRoute]:
    """Return the routes of some paths.

    Args:
        room: Gives what their handlers work with; None while the adapter is down.
    """
    here = while_up("the adapter kenko", room)
    made = [
        Operation(
            one.method, PREFIX + one.path, in_room(here, one.handle), one.says, one.scopes, one.spec
        )
        for one in paths
    ]
    return operation_routes(made, Manners(ready=here, refuse=_refused, refusal=Refusal))


def refusal_of(code: str, message: str) -> Refusal:
    """Return an error as these paths have it."""
    return Refusal(Reason(code, message))


def _refused(error: HubError) -> Reply:
    return Reply(status_of(error), refusal_of(error.code, error.message))


def part(name: str, says: str) -> Parameter:
    """Return the description of a part of a path."""
    return Parameter(name, says, {"type": "string", "minLength": 1}, "path")


# Pages: cursors are plain, because whoever follows a log makes them of numbers of its lines


def number_of(call: Call) -> int:
    """Return the number after which a page begins; 0 for the first.

    Raises:
        InvalidError: `?cursor=` is no number.
    """
    text = call.argument("cursor") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS):
        raise _foreign()
    return int(text)


def place_of(call: Call) -> tuple[int, str] | None:
    """Return the time and id after which a page begins; None for the first.

    Raises:
        InvalidError: `?cursor=` is none of `placed`.
    """
    text = call.argument("cursor")
    if text is None:
        return None
    at, _, known = text.partition("-")
    if not (at.isascii() and at.isdigit() and len(at) <= DIGITS and known):
        raise _foreign()
    return int(at), known


def placed(
    rows: Sequence[R],
    limit: int,
    place: Callable[[R], tuple[int, str]],
    view: Callable[[R], object],
) -> Reply:
    """Return a page of rows, of which there is one more than the limit unless it is the last.

    Args:
        place: Gives the time and the id that order the rows.
        view: Gives a row as it is shown.
    """

    def cursor_at(number: int) -> str:
        at, known = place(rows[number])
        return f"{at}-{known}"

    following = cursor_at(limit - 1) if len(rows) > limit else None
    return Reply(200, Page(map(view, rows[:limit]), following, cursor_at=cursor_at))


def numbered(
    rows: Sequence[R], limit: int, number: Callable[[R], int], view: Callable[[R], object]
) -> Reply:
    """Return a page of rows in the order of their numbers, as `placed` does."""

    def cursor_at(place: int) -> str:
        return str(number(rows[place]))

    following = cursor_at(limit - 1) if len(rows) > limit else None
    return Reply(200, Page(map(view, rows[:limit]), following, cursor_at=cursor_at))


def _foreign() -> InvalidError:
    return InvalidError("?cursor= is not one that this list gave")
