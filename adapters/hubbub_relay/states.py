"""How the relay names what a task is, and which tasks are its own."""

from __future__ import annotations

from typing import Final

from hubbub import Hub
from hubbub.values import Task, TaskState
from hubbub_relay import events

__all__ = ["RelayState", "is_ours", "of_relay_names", "state_of"]

RelayState = str
"""`pending`, `processing`, `completed` or `failed`."""

_STATES: Final = {
    TaskState.QUEUED: "pending",
    TaskState.DISPATCHED: "processing",
    TaskState.COMPLETED: "completed",
}


def state_of(task: Task) -> RelayState:
    """Return what the relay says of a task."""
    return _STATES.get(task.state, "failed")


async def is_ours(hub: Hub, task: Task) -> bool:
    """Tell whether a task came over the relay, or was given to one of its names."""
    if of_relay_names(task):
        return True
    return await hub.read(lambda session: events.was_sent(session, task.id))


def of_relay_names(task: Task) -> bool:
    """Tell whether a relay name asked for a task, or has it."""
    return task.asker.startswith("relay.") or (task.endpoint or "").startswith("relay.")
