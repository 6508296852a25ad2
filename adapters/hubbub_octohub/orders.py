"""What users may order with the action `command`: `task.submit`, `task.get`, `node.list`, ..."""

from __future__ import annotations

from collections.abc import Mapping

from hubbub.envelope import encode_json
from hubbub.errors import MalformedError, NotFoundError
from hubbub_octohub.desk import Desk, read_task
from hubbub_octohub.talk import Talk

__all__ = ["ORDERS", "Orders"]

ORDERS = ("task.submit", "task.get", "task.cancel", "task.retry", "node.list")


class Orders:
    """Follows the orders of users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def run(
        self, command: str, args: Mapping[str, object], speaker: Talk, *, traceparent: str
    ) -> object:
        """Follow one order; returns its result.

        Raises:
            HubError: it cannot be followed.
        """
        match command:
            case "task.submit":
                return await self._submit(args, speaker, traceparent)
            case "task.get":
                return await self._desk.get(_task_id(args))
            case "task.cancel":
                return await self._desk.cancel(_task_id(args), speaker.principal)
            case "task.retry":
                return await self._desk.retry(_task_id(args), speaker.principal)
            case "node.list":
                return {"items": self._desk.nodes(), "next": None}
            case _:
                raise NotFoundError(f"no command {command[:64]!r}; there are {', '.join(ORDERS)}")

    async def _submit(self, args: Mapping[str, object], speaker: Talk, traceparent: str) -> object:
        task = read_task(encode_json(args))  # measured as the frame it came in
        submitted = await self._desk.submit(
            task, speaker.principal, reply_to=speaker.principal.source, traceparent=traceparent
        )
        speaker.own.add(submitted.task_id)
        return submitted.shown


def _task_id(args: Mapping[str, object]) -> str:
    task_id = args.get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise MalformedError("`args.task_id` is missing")
    return task_id
