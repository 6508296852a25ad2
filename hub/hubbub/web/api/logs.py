"""Log lines that are remembered, and from which level on they are logged."""

from __future__ import annotations

from typing import Final

from hubbub.errors import ConflictError
from hubbub.logtelling import view_of
from hubbub.observe.logbook import LEVELS, Line, level_of
from hubbub.web import pages
from hubbub.web.calls import Call, Operation, Parameter, Reply, Spec
from hubbub.web.inputs import CURSOR, LIMIT, SINCE
from hubbub.web.shapes_of_upkeep import LevelIn, Levels, LogList

__all__ = ["OPERATIONS"]

MAX_CHOSEN: Final = 200
"""Loggers that a level was chosen for; a logger, once made, stays for good."""


async def listed(call: Call) -> Reply:
    """List lines, newest first: of a level and above, of a logger and below it, with a text."""
    limit, before = pages.limit_of(call), pages.number_after(call)
    level = pages.choice(call, "level", LEVELS)
    least = 0 if level is None else level_of(level)
    logger, text, since = (call.argument(name) for name in ("logger", "q", "since"))
    now_us = call.core.clock.now_us()
    since_us = 0 if since is None else pages.time_in(since, what="since", now_us=now_us)
    folded = None if text is None else text.casefold()
    found: list[Line] = []
    after = None
    for line in call.core.book.newest_first(before):
        if line.time_us < since_us:
            break
        if line.level < least or not _is_of(line.logger, logger):
            continue
        if folded is not None and folded not in line.text.casefold():
            continue
        if len(found) == limit:
            after = found[-1].number
            break
        found.append(line)
    return pages.page(map(view_of, found), after, places=[line.number for line in found])


def _is_of(name: str, logger: str | None) -> bool:
    return logger is None or name == logger or name.startswith(logger + ".")


async def choose(call: Call) -> Reply:
    """Log a logger and all below it from a level on, until the hub ends."""
    wanted, book = await call.json(LevelIn), call.core.book
    if len(book.levels) > MAX_CHOSEN and wanted.logger not in book.levels:
        raise ConflictError(f"levels of {MAX_CHOSEN} loggers were chosen, which is the limit")
    book.choose(wanted.level, wanted.logger)
    await call.core.audit(call.principal.name, "logs.level", wanted.logger, wanted.level)
    return Reply(200, {"levels": book.levels})


async def levels(call: Call) -> Reply:
    """Show the levels that hold."""
    return Reply(200, {"levels": call.core.book.levels})


OPERATIONS: Final = (
    Operation(
        "GET",
        "/api/v1/logs",
        listed,
        "The last log lines, newest first",
        spec=Spec(
            answers={200: LogList},
            parameters=(
                Parameter("level", "This level and above.", {"type": "string", "enum": [*LEVELS]}),
                Parameter("logger", "This logger and all below it.", {"type": "string"}),
                Parameter("q", "A text in the line; letter case is ignored.", {"type": "string"}),
                SINCE,
                LIMIT,
                CURSOR,
            ),
        ),
    ),
    Operation(
        "GET",
        "/api/v1/logs/level",
        levels,
        "From which level on is logged",
        spec=Spec(answers={200: Levels}),
    ),
    Operation(
        "PUT",
        "/api/v1/logs/level",
        choose,
        "Log from another level on",
        spec=Spec(answers={200: Levels}, body=LevelIn, problems=(409,)),
    ),
)
