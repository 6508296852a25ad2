"""What is an adapter's own in how its operations answer: who calls, what a refusal looks like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from hubbub.errors import HubError, UnavailableError
from hubbub.values import Principal

if TYPE_CHECKING:
    from hubbub.web.calls import Call, Handler, Reply

__all__ = ["HUBS", "Manners", "in_room", "while_up"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Manners:
    """What is said of all operations that are given together; nothing said is as the hub does.

    Attributes:
        ready: Raises `UnavailableError` while none of them can be answered; asked before anything
            else, also before who calls.
        login: Says who calls by a login of the adapter's own; None for whom the hub's tokens tell.
        refuse: Returns an error as another error, or as what is answered instead of a problem.
            Errors about who calls (401, 403) are problems on every path and do not come here;
            those derived from them do.
        refusal: Type of the body that `refuse` answers with, for the description of the API.
    """

    ready: Callable[[], object] | None = None
    login: Callable[[Call], Awaitable[Principal | None]] | None = None
    refuse: Callable[[HubError], HubError | Reply] | None = None
    refusal: object = None


HUBS: Final = Manners()
"""Those of the hub itself."""


def while_up(what: str, room: Callable[[], R | None]) -> Callable[[], R]:
    """Return what gives the room of an adapter, and raises while that is down.

    Args:
        what: Whose it is, such as `the adapter relay`.
        room: Gives what its handlers work with; None while it is down.
    """

    def here() -> R:
        found = room()
        if found is None:
            raise UnavailableError(f"{what} is not running")
        return found

    return here


def in_room(here: Callable[[], R], handle: Callable[[R, Call], Awaitable[Reply | None]]) -> Handler:
    """Return the handler of an operation that works with an adapter's room."""

    async def handled(call: Call) -> Reply | None:
        return await handle(here(), call)

    return handled
