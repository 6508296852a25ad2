"""The relay's endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from starlette.routing import BaseRoute, Route

from hubbub import Hub
from hubbub.envelope import encode_json
from hubbub.observe.tracing import parse_traceparent
from hubbub.ports import Leased
from hubbub.web import Listing, in_portions
from hubbub.web import traceparent as traceparent_of
from hubbub_relay import importing, wire
from hubbub_relay.calls import Answer, Call, Handle, Path, Room
from hubbub_relay.desk import Desk
from hubbub_relay.keys import ANONYMOUS, Caller
from hubbub_relay.wire import RelayError

__all__ = ["Api"]

METHODS: Final[tuple[str, ...]] = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

IMPORT_BODY: Final = 16 * 1024 * 1024
WHOLE_LOG: Final = 256 * 1024
"""Bytes of an answer to `logs` that are sent at once, with their length; longer ones as they are
read."""

POLL_STEP_S: Final = 1.0
"""How often a long poll for a pattern of names looks for new names."""


class Api:
    """The endpoints.

    Attributes:
        room: What they work with; None while the adapter is down.
    """

    def __init__(self) -> None:
        self.room: Room | None = None

    def routes(self, prefix: str) -> list[BaseRoute]:
        """Return the routes, the busiest first."""
        paths: list[tuple[str, str, Mapping[str, Handle]]] = [
            ("send", "/send", {"POST": _send}),
            ("callback", "/callback", {"POST": _callback}),
            ("tasks", "/tasks", {"GET": _tasks}),
            ("task-status", "/task-status/{task_id:path}", {"GET": _status}),
            ("logs", "/logs", {"GET": _logs}),
            ("ack", "/ack", {"POST": _ack}),
            ("renew", "/tasks/{task_id}/renew", {"POST": _renew}),
            ("clear", "/clear", {"POST": _clear}),
            ("import", "/import", {"POST": _import}),
        ]
        routes: list[BaseRoute] = [
            Route(prefix + path, Path(name, lambda: self.room, methods), name=f"relay {name}")
            for name, path, methods in paths
        ]
        missing: dict[str, Handle] = dict.fromkeys(METHODS, _missing)
        other = Path("other", lambda: self.room, missing)
        return [*routes, Route(prefix + "/{rest:path}", other, name="relay other")]


# Handlers


async def _send(call: Call) -> Answer:
    caller = call.caller("send")
    request = wire.read_send(await call.body(call.room.max_body_bytes))
    parsed = parse_traceparent(traceparent_of(call.headers))
    traceparent = f"00-{parsed[0]}-{parsed[1]}-01" if parsed else None
    sent = await call.room.sending.send(request, caller, traceparent=traceparent)
    return 200, wire.sent(sent.task_id, duplicate=sent.duplicate)


async def _callback(call: Call) -> Answer:
    caller = call.caller("callback")
    request = wire.read_callback(await call.body(call.room.max_body_bytes))
    duplicate = await call.room.results.callback(request, caller)
    return 200, b'{"status":"ok","duplicate":true}' if duplicate else wire.OK


async def _ack(call: Call) -> Answer:
    caller = call.caller("send", "callback")
    request = wire.read_ack(await call.body(call.room.max_body_bytes))
    await call.room.results.ack(request, caller)
    return 200, wire.OK


async def _logs(call: Call) -> Answer:
    reader = _reader(call)
    query = wire.read_logs_query(call.query)
    portions = _log_portions(call.room.desk.logs(query, reader), reader, call.room.hub)
    whole: list[bytes] = []
    size = 0
    async for portion in portions:
        whole.append(portion)
        size += len(portion)
        if size > WHOLE_LOG:
            return 200, _after(whole, portions)
    return 200, whole


async def _log_portions(
    records: AsyncGenerator[list[bytes]], reader: Caller, hub: Hub
) -> AsyncGenerator[bytes]:
    """Yield the answer to `logs`, a record or some small ones at once."""
    opening = wire.LOGS
    async with aclosing(records):
        async for some in records:
            hub.credentials.check(reader.credential)
            for portion in in_portions(wire.log_parts(some, opening)):
                yield portion
            opening = b"," if some else opening
    yield b"]}" if opening == b"," else opening + b"]}"


async def _after(before: list[bytes], portions: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield what was read before, then the rest."""
    async with aclosing(portions):
        for portion in before:
            yield portion
        async for portion in portions:
            yield portion


def _reader(call: Call) -> Caller:
    """Return who reads; the limits of a key hold also where nobody needs one."""
    reader = ANONYMOUS if call.may_read else call.caller("read")
    return call.reader() or reader


async def _status(call: Call) -> Answer:
    reader = _reader(call)
    task_id = wire.task_id_of(call.part("task_id"))
    found = await call.room.desk.status(task_id, reader)
    if found is None:
        raise RelayError("task not found", 404)
    shown: dict[str, object] = {"status": "ok", "task_id": task_id, "task_status": found.state}
    if reader.may("read"):
        shown |= wire.task_details(found.task)
    return 200, encode_json(shown)


async def _tasks(call: Call) -> Answer:
    caller = call.caller("work")
    query = wire.read_tasks_query(call.query)
    async with call.room.hub.credentials.within(caller.credential):
        tasks = await _leased(call, query, caller)
    shown = (call.room.desk.shown(task, query.to) for task in tasks)
    return 200, await Listing("tasks", shown, before={"status": "ok"}).encode()


async def _leased(call: Call, query: wire.TasksQuery, caller: Caller) -> list[Leased]:
    """Take tasks; wait for the first one, as long as the client is there."""
    desk = call.room.desk
    if not query.wait_s:
        return await desk.lease(query, caller, wait_s=0)
    await call.body(call.room.max_body_bytes)
    leasing = asyncio.ensure_future(_poll(desk, query, caller))
    leaving = asyncio.ensure_future(call.receive())
    try:
        await asyncio.wait((leasing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not leasing.done():
            raise RelayError("the client went away")
        return leasing.result()
    finally:
        leasing.cancel()
        leaving.cancel()
        await asyncio.gather(leasing, leaving, return_exceptions=True)


async def _poll(desk: Desk, query: wire.TasksQuery, caller: Caller) -> list[Leased]:
    if not query.to.endswith("*"):
        return await desk.lease(query, caller, wait_s=query.wait_s)
    left = query.wait_s
    while True:
        wait_s = min(left, POLL_STEP_S)
        tasks = await desk.lease(query, caller, wait_s=wait_s)
        left -= wait_s
        if tasks or left <= 0:
            return tasks


async def _renew(call: Call) -> Answer:
    caller = call.caller("work")
    request = wire.read_renew(await call.body(call.room.max_body_bytes))
    task_id = wire.task_id_of(call.part("task_id"))
    until = await call.room.desk.renew(task_id, request, caller)
    return 200, encode_json({"status": "ok", "task_id": task_id, "lease_until": until})


async def _clear(call: Call) -> Answer:
    caller = call.caller("admin")
    newest = await call.room.desk.clear()
    await call.room.hub.audit(caller.name, "relay.clear", "relay_event", f"up to id {newest}")
    return 200, '{"status":"ok","msg":"对话日志已清空"}'.encode()


async def _import(call: Call) -> Answer:
    caller = call.caller("admin")
    batch = importing.read_batch(await call.body(IMPORT_BODY))
    done = await importing.take(call.room.hub, call.room.sending, batch, caller)
    await call.room.hub.audit(caller.name, "relay.import", "relay_event", f"{done.kept} records")
    return 200, encode_json(
        {"status": "ok", "kept": done.kept, "known": done.known, "queued": done.queued}
    )


async def _missing(call: Call) -> Answer:
    del call
    raise RelayError("not found", 404)
