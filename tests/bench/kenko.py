"""Figures of the KenkoGo adapter: a message in, a message out, on WebSocket and Socket.IO; memory.

Every application sends messages that a route sends back to itself: one frame in, the whole way
through the hub, one frame out. The floor is a bare echo, which does nothing with what it is sent.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

import msgspec
import psutil

from tests.bench.chat import Chat, idling, run_chat
from tests.bench.hubs import FloorProcess, HubProcess, Sample, Server, cpu_s, scratch
from tests.bench.plan import Plan
from tests.bench.table import Line, compared

__all__ = ["kenko", "kenko_idle"]

IDLE: Final = 5000
SIZE: Final = 309

CONFIG: Final = """
[[routes]]
name = "durable, back to whoever said it"
match = "kenko.*.message"
where = { "data.lang" = "durable" }
to = ["kenko.app.{subject.1}"]
durable = true

[[routes]]
name = "back to whoever said it"
match = "kenko.*.message"
to = ["kenko.app.{subject.1}"]
"""

SETTINGS: Final = (
    "adapters.kenko.enabled=true",
    "adapters.kenko.max_clients=20000",
    "hub.limits.connections=20000",
)

REGISTER: Final = (
    '{"type":"register","data":{"name":"bench","version":"1","description":"","author":""}}'
)


def _said(durable: bool) -> str:
    head = '{"content":"' + "how is the weather where you are? " * 10
    tail = '","lang":"durable"}' if durable else '"}'
    return head[: SIZE - 30 - len(tail)] + tail


def websocket(*, durable: bool, path: str = "/") -> Chat:
    """Return the load of applications on plain WebSocket."""
    say = '{"type":"message","data":' + _said(durable) + "}"
    return Chat(0, path, (REGISTER,), ('"start"',), say, '"message"')


def echo(path: str) -> Chat:
    """Return the same load for the floor."""
    say = '{"type":"message","data":' + _said(False) + "}"
    return Chat(0, path, (), (), say, '"message"')


def socketio(*, durable: bool) -> Chat:
    """Return the load of applications on Socket.IO, websocket transport."""
    say = '42/client,["message",' + _said(durable) + "]"
    hello = ("40/client,", '42/client,["auth","bench"]')
    path = "/socket.io/?EIO=4&transport=websocket"
    return Chat(0, path, hello, ('"sid"', '["start"]'), say, '["message"')


def kenko(plan: Plan) -> list[Line]:
    """One message in, one out, at 1, 8 and 64 applications."""
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(FloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", config=CONFIG, settings=SETTINGS))
        lines: list[Line] = []
        for connections in (1, 8, 64):
            last = connections == 64
            for durable, target in ((False, ">= 0.5"), (True, ">= 0.4")):
                name = f"{connections} apps, {'durable' if durable else 'volatile'}"
                line = _line(
                    plan, name, connections, (floor, echo("/echo")),
                    (hub, websocket(durable=durable)),
                )  # fmt: skip
                line.target = target if last else ""
                lines.append(line)
        both = (floor, echo("/echo/durable")), (hub, websocket(durable=True))
        lines.append(_line(plan, "64 apps, durable, floor durable too", 64, *both))
        for durable in (False, True):
            name = f"64 apps on Socket.IO, {'durable' if durable else 'volatile'}"
            both = (floor, echo("/echo")), (hub, socketio(durable=durable))
            lines.append(_line(plan, name, 64, *both))
        return lines


def kenko_idle(plan: Plan) -> list[Line]:
    """Memory of 5,000 applications that only stay, beside 5,000 connections of the floor."""
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(FloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", config=CONFIG, settings=SETTINGS))
        figures: list[float] = []
        for server, chat in (
            (floor, Chat(0, "/echo")),
            (hub, websocket(durable=False)),
        ):
            before = server.rss_mb()
            with idling(msgspec.structs.replace(chat, port=server.port, idle=IDLE)):
                time.sleep(1.0)  # what registering left behind is collected
                figures.append((server.rss_mb() - before) / IDLE * 1000)
        bare, whole = figures
        return [
            Line(
                bench="kenko_idle",
                name=f"{IDLE:,} idle apps, memory of one",
                unit="kB",
                hub=whole,
                floor=bare,
                ratio=whole / bare,
            )
        ]


def _line(
    plan: Plan,
    name: str,
    connections: int,
    floor: tuple[Server, Chat],
    hub: tuple[Server, Chat],
) -> Line:
    taken: list[tuple[Sample, Sample]] = []
    for _ in range(plan.rounds):
        one, other = (_sample(plan, *side, connections) for side in (floor, hub))
        taken.append((one, other))
    return compared("kenko", name, taken, unit="msg/s")


def _sample(plan: Plan, server: Server, chat: Chat, connections: int) -> Sample:
    chat = msgspec.structs.replace(
        chat, port=server.port, connections=connections, seconds=plan.seconds
    )
    process = psutil.Process(server.pid)
    before, loop_before = cpu_s(process)
    result = run_chat(chat)
    after, loop_after = cpu_s(process)
    answers = max(1, result.total)
    return Sample(
        result,
        cpu_us=(after - before) / answers * 1e6,
        loop_us=(loop_after - loop_before) / answers * 1e6,
    )
