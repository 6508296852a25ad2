"""Benchmarks over WebSocket streams, and of a hub that has grown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import psutil

from tests.bench.hubs import HubProcess, Sample, Server, cpu_s, scratch
from tests.bench.load import GRACE_S, NUMBER, Result
from tests.bench.plan import Plan, filled
from tests.bench.sockets import StreamLoad, raise_file_limit
from tests.bench.table import Line, compared, trouble

__all__ = [
    "SETTINGS",
    "StreamFloorProcess",
    "fan_load",
    "fan_out",
    "idle",
    "measure",
    "publishing",
    "stream_load",
    "streams",
]

PATH: Final = "/api/v1/stream?subject=bench.@@@@@&concurrency=64"
FAN: Final = 1000
IDLE: Final = 10_000

SETTINGS: Final = ("hub.limits.connections=30000", "hub.publish_rate=0")


class StreamFloorProcess(Server):
    """The floor of streams on a database of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.bench.floor_streams", str(folder / "floor.db")]
        super().__init__(command, log=folder / "floor.log")


def publishing(*, durable: bool) -> bytes:
    """Return the frame that publishes one envelope of 309 bytes."""
    said = b"" if durable else b'"durable":false,'
    head = b'{"type":"publish","ref":"' + NUMBER + b'","envelope":'
    body = b'{"subject":"bench.@@@@@",' + said + b'"data":{"n":"' + NUMBER + b'","text":"'
    return head + filled(body, b'"}}') + b"}"


def measure(server: Server, load: StreamLoad) -> Sample:
    """Put a load of streams on a server; returns what came of it, connecting not counted."""
    load = msgspec.structs.replace(load, port=server.port)
    process = psutil.Process(server.pid)
    client = _client(load)
    with client:
        before, loop_before = cpu_s(process)
        result = msgspec.json.decode(_next(client), type=Result)
        after, loop_after = cpu_s(process)
        client.communicate(b"\n", timeout=GRACE_S + 20)
    messages = max(1, result.total)
    return Sample(
        result,
        cpu_us=(after - before) / messages * 1e6,
        loop_us=(loop_after - loop_before) / messages * 1e6,
    )


def _client(load: StreamLoad) -> subprocess.Popen[bytes]:
    """Start a client and wait until it is connected."""
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sockets"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(msgspec.json.encode(load) + b"\n")
    client.stdin.flush()
    said = client.stdout.readline()
    if said != b"connected\n":
        client.kill()
        raise RuntimeError(f"the client did not connect: {said!r}")
    return client


def _next(client: subprocess.Popen[bytes]) -> bytes:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"\n")
    client.stdin.flush()
    return client.stdout.readline()


def streams(plan: Plan) -> list[Line]:
    """One publisher to one subscriber, 64 times: volatile and durable, full and half load."""
    lines: list[Line] = []
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(StreamFloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", settings=SETTINGS))
        for name, durable, target, latency in (
            ("volatile", False, ">= 0.7", "p50 <= 1, p99 <= 5"),
            ("durable", True, ">= 0.65", "p50 <= 2, p99 <= 15"),
        ):
            text = publishing(durable=durable)
            whole = stream_load(plan, text, hub.token())
            bare = msgspec.structs.replace(
                whole, path=PATH + "&durable=1" if durable else PATH, headers={}
            )
            line = compared("streams", name, _pairs(plan, (floor, bare), (hub, whole)),
                            unit="msg/s", target=target)  # fmt: skip
            lines += [line, _half(plan, name, (floor, bare), (hub, whole), line.hub / 2, latency)]
    return lines


def fan_out(plan: Plan) -> list[Line]:
    """One publisher to 1,000 subscribers, volatile, two messages under way."""
    raise_file_limit()
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(StreamFloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", settings=SETTINGS))
        taken = _pairs(plan, (floor, fan_load(plan, {})), (hub, fan_load(plan, hub.token())))
        line = compared("fan-out", f"one message to {FAN:,}", taken, unit="deliveries/s",
                        per_request=FAN, target=">= 0.7")  # fmt: skip
        line.cpu_us = (line.cpu_us or 0) / FAN
        line.floor_cpu_us = (line.floor_cpu_us or 0) / FAN
        line.note = "; ".join(filter(None, (line.note, "CPU of one delivery")))
        return [line]


def idle(plan: Plan) -> list[Line]:
    """Memory of 10,000 clients that are there and say nothing."""
    raise_file_limit()
    lines: list[float] = []
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(StreamFloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", settings=SETTINGS))
        for server, headers in ((floor, {}), (hub, hub.token())):
            before = server.rss_mb()
            load = StreamLoad(server.port, PATH, headers=headers, idle=IDLE)
            client = _client(load)
            with client:
                lines.append((server.rss_mb() - before) * 1e6 / 1024 / IDLE)
                _next(client)
                client.communicate(b"\n", timeout=60)
    return [
        Line(bench="idle", name=f"{IDLE:,} clients", unit="KiB each", floor=lines[0], hub=lines[1],
             ratio=lines[1] / lines[0], target="<= 40 KiB"),
    ]  # fmt: skip


def stream_load(plan: Plan, text: bytes, headers: dict[str, str]) -> StreamLoad:
    """Return 64 publishers with a subscriber each."""
    return StreamLoad(0, PATH, text=text, headers=headers, seconds=plan.seconds)


def fan_load(plan: Plan, headers: dict[str, str]) -> StreamLoad:
    """Return one publisher with many subscribers."""
    return msgspec.structs.replace(
        stream_load(plan, publishing(durable=False), headers), pairs=1, fan=FAN, window=2
    )


def _pairs(
    plan: Plan, floor: tuple[Server, StreamLoad], hub: tuple[Server, StreamLoad]
) -> list[tuple[Sample, Sample]]:
    """Return rounds of two sides, taken in turns."""
    return [(measure(*floor), measure(*hub)) for _ in range(plan.rounds)]


def _half(
    plan: Plan,
    name: str,
    floor: tuple[Server, StreamLoad],
    hub: tuple[Server, StreamLoad],
    rate: float,
    target: str,
) -> Line:
    """Return the latency of both when messages come at a fixed rate."""
    at_rate = [
        (server, msgspec.structs.replace(load, rate=rate)) for server, load in (floor, hub)
    ]  # fmt: skip
    taken = _pairs(plan, at_rate[0], at_rate[1])
    line = compared("streams", f"{name}, half load", taken, unit="msg/s", target=target)
    line.ratio = None
    said = (
        f"floor p50 {_median(taken, 0, 'p50_ms'):.2f} p99 {_median(taken, 0, 'p99_ms'):.2f} ms; "
        f"client late p99 {_median(taken, 1, 'late_p99_ms'):.2f} ms"
    )
    line.note = "; ".join(filter(None, (trouble([s for pair in taken for s in pair]), said)))
    return line


def _median(taken: Sequence[tuple[Sample, Sample]], side: int, name: str) -> float:
    return median(float(getattr(pair[side].result, name)) for pair in taken)
