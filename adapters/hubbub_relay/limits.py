"""The limits of keys, wherever a caller touches a task or reads the log: one place for all of them.

A task is within a key's limits when the key may take tasks of the name it was sent to, or of the
name that has it, and of its command. A record is within them when its task is, or, of messages,
when it is to such a name; what is to or from a name that the key speaks as is, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import ColumnElement, and_, exists, func, or_, select, true
from sqlmodel import Session

from hubbub.ports import HubApi
from hubbub.store.tables import TaskRow, table_of
from hubbub.subjects import escape, unescape
from hubbub.values import Task
from hubbub_relay.events import RelayEventRow
from hubbub_relay.keys import Caller
from hubbub_relay.wire import FORBIDDEN, RelayError

if TYPE_CHECKING:
    from sqlalchemy import Column

__all__ = ["UNNAMED_CHILD", "check_task", "orphan_asker", "orphan_maker", "visible"]

UNNAMED_CHILD: Final = "relay.callback"
"""Who brings a result that says no `child_id`; also who asks for a task nobody asked for."""

_PREFIX: Final = "relay."
_event = table_of(RelayEventRow)
_task = table_of(TaskRow)


class _Addressed(msgspec.Struct, frozen=True):
    to: object = None


_addressed = msgspec.json.Decoder(_Addressed).decode


async def check_task(hub: HubApi, caller: Caller, task: Task) -> None:
    """Check that a task is within a caller's limits.

    Raises:
        RelayError: it is not (403).
    """
    if not caller.limited:
        return
    names = await hub.read(lambda session: _sent_to(session, task.id)) if caller.to else []
    if task.endpoint is not None and task.endpoint.startswith(_PREFIX):
        names.append(unescape(task.endpoint.removeprefix(_PREFIX)))
    if not caller.may_touch(names, task.task_type):
        raise RelayError(FORBIDDEN, 403)


def _sent_to(session: Session, task_id: str) -> list[str]:
    """Return the names a task was sent to, by its records."""
    query = select(_event.c.body).where(
        _event.c.task_id == task_id, _event.c.event == "send", _event.c.type == "task"
    )
    named = (_addressed(str(row[0])).to for row in session.connection().execute(query))
    return [str(name) for name in named if isinstance(name, (str, int, float))]


def orphan_asker(caller: Caller) -> str:
    """Return who asks for a task that only a callback knows of: a limited key's is its own."""
    return f"{UNNAMED_CHILD}.{escape(caller.name)}" if caller.limited else UNNAMED_CHILD


def orphan_maker(task: Task) -> str | None:
    """Return the name of the limited key that made a task by calling back; None for all others."""
    prefix = f"{UNNAMED_CHILD}."
    if not (task.orphan and task.asker.startswith(prefix)):
        return None
    return unescape(task.asker.removeprefix(prefix))


def visible(caller: Caller | None) -> ColumnElement[bool] | None:
    """Return the condition that a record is within a caller's limits; None without limits."""
    if caller is None or not caller.limited:
        return None
    sent = _event.alias("sent")
    of_task = exists(
        select(sent.c.id).where(
            sent.c.task_id == _event.c.task_id,
            sent.c.event == "send",
            sent.c.type == "task",
            _named(caller, sent.c.from_, sent.c.to_),
        )
    )
    direct = and_(_event.c.event == "send", _named(caller, _event.c.from_, _event.c.to_))
    reply = and_(_event.c.event != "send", of_task)
    own = _within(_event.c.from_, caller.speaks_as) if caller.speaks_as else None
    names = or_(direct, reply) if own is None else or_(direct, reply, own)
    return and_(names, _commanded(caller)) if caller.cmd else names


def _named(
    caller: Caller, sender: Column[str | None], to: Column[str | None]
) -> ColumnElement[bool]:
    """Return the condition that a `send` is to a name of the key, or to or from its own names."""
    if not (caller.to or caller.speaks_as):
        return true()
    found: list[ColumnElement[bool]] = []
    if caller.to:
        found.append(_within(to, caller.to))
    if caller.speaks_as:
        found += [_within(to, caller.speaks_as), _within(sender, caller.speaks_as)]
    return or_(*found)


def _commanded(caller: Caller) -> ColumnElement[bool]:
    """Return the condition that a record is of a task with a command of the key, or of none."""
    of_command = exists(
        select(_task.c.id).where(
            _task.c.id == _event.c.task_id, _within(_task.c.task_type, caller.cmd)
        )
    )
    message = and_(_event.c.event == "send", func.coalesce(_event.c.type, "") != "task")
    return or_(message, of_command)


def _within(column: Column[str] | Column[str | None], limits: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a name is within limits; capital letters count."""
    each = [
        func.substr(column, 1, len(limit) - 1) == limit[:-1]
        if limit.endswith("*")
        else column == limit
        for limit in limits
    ]
    return or_(*each)
