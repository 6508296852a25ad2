"""The benchmarks. Each takes a plan and returns lines of the table."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tests.bench.fill import fill, one_task
from tests.bench.grown import grown
from tests.bench.hubs import DispatcherProcess, FloorProcess, HubProcess, Sample, Server, scratch
from tests.bench.journal import journal
from tests.bench.kenko import kenko, kenko_idle
from tests.bench.load import NUMBER, Load, Workers, post
from tests.bench.nodes import Nodes
from tests.bench.plan import Plan, envelope, poll, relay_send, relay_task, rounds, several
from tests.bench.streams import fan_out, idle, streams
from tests.bench.table import Line, compared, trouble

__all__ = ["ALL", "PUBLISH_CONFIG", "batches_for_nodes", "publish_request", "tasks_for_nodes"]

PUBLISH: Final = "/api/v1/envelopes"
STORED: Final = "bench.stored"
UNROUTED: Final = "nobody.listens"
BATCH: Final = 100
WORKERS: Final = 8

PUBLISH_CONFIG: Final = """
[[routes]]
name = "kept until somebody comes"
match = "bench.stored"
to = ["stream.bench"]
hold = "1h"
"""


def publish_request(hub: HubProcess, subject: str, *, durable: bool = True, of: int = 1) -> bytes:
    """Return the request that publishes one envelope, or a batch of them."""
    body = envelope(subject, durable=durable)
    return post(PUBLISH, body if of == 1 else several(body, of), hub.token())


def publish(plan: Plan) -> list[Line]:
    """POST /api/v1/envelopes: kept or not, alone or in batches, with a mailbox or without."""
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(FloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub", config=PUBLISH_CONFIG))
        alone = envelope(UNROUTED, durable=True)
        durable = post("/durable", alone)
        cases = {
            "durable, unrouted": (durable, publish_request(hub, UNROUTED), 1, ""),
            "durable, one mailbox": (durable, publish_request(hub, STORED), 1, ""),
            "volatile, unrouted": (
                post("/volatile", alone), publish_request(hub, UNROUTED, durable=False), 1, "",
            ),
            "batches of 100, unrouted": (
                post("/batch", several(alone, BATCH)),
                publish_request(hub, UNROUTED, of=BATCH), BATCH, "",
            ),
            "batches of 100, one mailbox": (
                post("/batch", several(alone, BATCH)),
                publish_request(hub, STORED, of=BATCH), BATCH, "",
            ),
        }  # fmt: skip
        lines: list[Line] = []
        for name, (bare, whole, size, target) in cases.items():
            taken = pairs(plan, (floor, plan.load(bare)), (hub, plan.load(whole)))
            unit = "msg/s" if size > 1 else "req/s"
            line = compared(
                "publish", name, taken, unit=unit, per_request=size, target=target
            )  # fmt: skip
            lines.append(line)
            if size == 1:
                half = line.hub / 2
                lines.append(half_load(plan, "publish", name, (floor, bare), (hub, whole), half))
        return lines


def relay(plan: Plan) -> list[Line]:
    """POST /api/relay/send at 1, 8 and 64 connections, and its latency at half load."""
    with scratch(plan.where) as folder, ExitStack() as stack:
        floor = stack.enter_context(FloorProcess(folder / "floor"))
        hub = stack.enter_context(HubProcess(folder / "hub"))
        bare, whole = post("/durable", relay_task()), relay_send()
        lines: list[Line] = []
        for connections in (1, 8, 64):
            taken = pairs(
                plan,
                (floor, plan.load(bare, connections=connections)),
                (hub, plan.load(whole, connections=connections)),
            )
            target = ">= 0.6" if connections == 64 else ""
            lines.append(compared("relay", f"{connections} connections", taken, target=target))
        half = lines[-1].hub / 2
        lines.append(half_load(plan, "relay", "64", (floor, bare), (hub, whole), half))
        return lines


def growth(plan: Plan) -> list[Line]:
    """POST /api/relay/send on hubs that hold few and many tasks, in turns."""
    stores: list[tuple[str, int, bool]] = [("empty", 0, False)]
    for tasks in sorted({min(10_000, plan.tasks), plan.tasks}):
        stores += [(f"{tasks:,} waiting", tasks, False), (f"{tasks:,} finished", tasks, True)]
    with scratch(plan.where) as folder, ExitStack() as stack:
        hubs: list[HubProcess] = []
        for name, tasks, finished in stores:
            hub = HubProcess(folder / name.replace(",", "").replace(" ", "-"))
            if tasks:
                _filled(hub, tasks, finished=finished)
            hubs.append(stack.enter_context(hub))
            _holds(hub, tasks, finished=finished)
        load = plan.load(relay_send())
        taken = rounds(plan, [(hub, load) for hub in hubs])
        lines: list[Line] = []
        for place, (name, tasks, _) in enumerate(stores):
            line = compared("growth", name, [(one[0], one[place]) for one in taken])
            line.note = "; ".join(
                filter(None, (line.note, f"ready in {hubs[place].ready_s:.2f} s"))
            )
            line.target = ">= 0.9" if tasks else ""
            lines.append(line)
        lines[0].ratio = lines[0].floor = lines[0].floor_cpu_us = None
        return lines


def lease(plan: Plan) -> list[Line]:
    """From the intended time of a send to the arrival of the task at a worker that waits."""
    with scratch(plan.where) as folder, HubProcess(folder / "hub") as hub:
        most = median(
            hub.measure(plan.load(relay_send())).result.rate for _ in range(plan.rounds)
        )  # fmt: skip
    lines: list[Line] = []
    for share in (0.1, 0.25, 0.5):
        rate = most * share
        with scratch(plan.where) as folder, HubProcess(folder / "hub") as hub:
            # Beforehand, so that no worker asks for a name nobody knows.
            one_task(hub, finished=True)
            workers = Workers([poll(f"w{number}") for number in range(WORKERS)])
            load = msgspec.structs.replace(plan.load(relay_send(), rate=rate), workers=workers)
            samples = [hub.measure(load) for _ in range(plan.rounds)]
        lines += _leased(f"{share:.0%} of {most:,.0f}/s", rate, samples)
    return lines


def _leased(
    name: str, rate: float, samples: Sequence[Sample], *, bench: str = "lease"
) -> list[Line]:
    """Return two lines: until the sender has its answer, and until a worker has the task."""
    results = [sample.result for sample in samples]
    unleased = sum(result.unleased for result in results)
    late = f"client late p99 {median(r.late_p99_ms for r in results):.2f} ms"
    said = "; ".join(filter(None, (trouble(samples), f"unleased {unleased}" if unleased else "")))
    sent = Line(
        bench=bench,
        name=f"{name}: answered",
        unit="req/s",
        hub=median(result.rate for result in results),
        p50_ms=median(result.p50_ms for result in results),
        p99_ms=median(result.p99_ms for result in results),
        cpu_us=median(sample.cpu_us for sample in samples),
        note="; ".join(filter(None, (said, late))),
    )
    leased = Line(
        bench=bench,
        name=f"{name}: leased",
        unit="tasks/s",
        hub=rate * median(r.leased / max(1, r.leased + r.unleased) for r in results),
        p50_ms=median(result.leased_p50_ms for result in results),
        p99_ms=median(result.leased_p99_ms for result in results),
    )
    return [sent, leased]


def nodes(plan: Plan) -> list[Line]:
    """OctoHub: tasks that nodes do, how long until one has them, and many that are connected."""
    with scratch(plan.where) as folder, ExitStack() as stack:
        bare = stack.enter_context(DispatcherProcess(folder / "bare"))
        hub = stack.enter_context(HubProcess(folder / "hub"))
        request = post("/tasks", several(_ECHO, BATCH))
        simply = msgspec.structs.replace(plan.load(request, connections=2), nodes=_at_work(BATCH))
        taken = pairs(plan, (bare, simply), (hub, batches_for_nodes(plan, hub)))
        done = compared("nodes", "32 x 4, done", taken, unit="tasks/s", target=">= 0.4 and 2,000/s")
        done.p50_ms = done.p99_ms = None  # of batches, which wait for nobody
    with scratch(plan.where) as folder, HubProcess(folder / "hub") as fresh:
        load = tasks_for_nodes(plan, fresh)
        singly = [fresh.measure(load) for _ in range(plan.rounds)]
    with scratch(plan.where) as folder, HubProcess(folder / "hub") as fresh:
        rate = median(sample.result.rate for sample in singly) / 2
        load = tasks_for_nodes(plan, fresh, rate=rate)
        samples = [fresh.measure(load) for _ in range(plan.rounds)]
    each = Line(
        bench="nodes",
        name="32 x 4, each its own request",
        unit="tasks/s",
        hub=rate * 2,
        cpu_us=median(sample.cpu_us for sample in singly),
        note=trouble(singly),
    )
    return [done, each, *_leased(f"{rate:,.0f}/s", rate, samples, bench="nodes"), _many(plan)]


def batches_for_nodes(plan: Plan, hub: HubProcess) -> Load:
    """Return tasks in batches, more than 32 nodes can have at once."""
    request = post(PUBLISH, several(_ECHO, BATCH), hub.token())
    return msgspec.structs.replace(plan.load(request, connections=2), nodes=_at_work(BATCH))


def tasks_for_nodes(plan: Plan, hub: HubProcess, *, rate: float | None = None) -> Load:
    """Return tasks for 32 nodes, each a request of its own."""
    body = b'{"task_type":"echo","data":{"k":"v","n":"' + NUMBER + b'"}}'
    request = post("/api/octohub/tasks", body, hub.token())
    return msgspec.structs.replace(plan.load(request, rate=rate), nodes=_at_work(1))


def _at_work(per_request: int) -> Nodes:
    return Nodes(32, 4, per_request=per_request)


def _many(plan: Plan) -> Line:
    """A thousand nodes that are connected, and do one task each at a time."""
    with scratch(plan.where) as folder, HubProcess(folder / "hub") as hub:
        empty = hub.rss_mb()
        work = post(PUBLISH, several(_ECHO, BATCH), hub.token())
        many = Nodes(1000, 1, per_request=BATCH)
        load = msgspec.structs.replace(plan.load(work, connections=2), nodes=many)
        done = hub.measure(load)
        grown = hub.rss_mb() - empty
    return Line(
        bench="nodes",
        name="1,000 connected, done",
        unit="tasks/s",
        hub=done.result.rate,
        cpu_us=done.cpu_us,
        note="; ".join(filter(None, (trouble([done]), f"{grown:.0f} MB more than an empty hub"))),
    )


_ECHO: Final = (
    b'{"subject":"octohub.task.echo","type":"hubbub.task.request.v1","data":'
    b'{"task_type":"echo","params":{"k":"v"}}}'
)


def start(plan: Plan) -> list[Line]:
    """From the start of the process to the line that says ready; five times."""
    with scratch(plan.where) as folder:
        first = HubProcess(folder / "hub")
        floor = FloorProcess(folder / "floor")
        with first:
            made = first.ready_s
        hubs: list[float] = []
        floors: list[float] = []
        for number in range(5):
            floor = FloorProcess(folder / f"floor{number}")
            with floor:
                floors.append(floor.ready_s)
            with first:
                hubs.append(first.ready_s)
    again = Line(
        bench="start",
        name="to ready",
        unit="s",
        hub=median(hubs),
        floor=median(floors),
        ratio=median(hub / bare for hub, bare in zip(hubs, floors, strict=True)),
        target="<= 1.5 s",
        note=f"slowest {max(hubs):.2f} s; with a new database {made:.2f} s",
    )
    return [again]


def memory(plan: Plan) -> list[Line]:
    """Resident memory of an empty hub, and after many tasks were sent to it."""
    with scratch(plan.where) as folder, HubProcess(folder / "hub") as hub:
        lines = [
            Line(bench="memory", name="empty", unit="MB", hub=hub.rss_mb(), target="<= 120 MB")
        ]
        sent = 0
        samples: list[Sample] = []
        marks = sorted({plan.tasks // 10, plan.tasks})
        for mark in marks:
            while sent < mark:
                load = Load(0, relay_send(), seconds=60.0, warm_up_s=0.0, most=mark - sent)
                samples.append(hub.measure(load))
                sent += samples[-1].result.total
                if samples[-1].result.errors:
                    break
            note = trouble(samples)
            lines.append(
                Line(bench="memory", name=f"{sent:,} sent", unit="MB", hub=hub.rss_mb(), note=note)
            )
        return lines


def pairs(
    plan: Plan, floor: tuple[Server, Load], hub: tuple[Server, Load]
) -> list[tuple[Sample, Sample]]:
    """Return rounds of two sides."""
    return [(one[0], one[1]) for one in rounds(plan, [floor, hub])]


def half_load(
    plan: Plan,
    bench: str,
    name: str,
    floor: tuple[Server, bytes],
    hub: tuple[Server, bytes],
    rate: float,
) -> Line:
    """Return the latency of both when requests come at a fixed rate; the ratio is that of p99."""
    taken = pairs(
        plan,
        (floor[0], plan.load(floor[1], rate=rate)),
        (hub[0], plan.load(hub[1], rate=rate)),
    )
    line = compared(bench, f"{name}, half load", taken)
    p50 = median(floor.result.p50_ms for floor, _ in taken)
    p99 = median(floor.result.p99_ms for floor, _ in taken)
    late = median(hub.result.late_p99_ms for _, hub in taken)
    line.ratio = None
    said = f"floor p50 {p50:.2f} p99 {p99:.2f} ms; client late p99 {late:.2f} ms"
    line.note = "; ".join(filter(None, (line.note, said)))
    return line


def _filled(hub: HubProcess, tasks: int, *, finished: bool) -> None:
    """Let a hub make its database and one task in it; then copy that."""
    with hub:
        one_task(hub, finished=finished)
    fill(hub.database, tasks)


def _holds(hub: HubProcess, tasks: int, *, finished: bool) -> None:
    """Check that a hub knows what was filled in: it gives the oldest task to a worker."""
    stored = _count(hub.database)
    assert stored == tasks, f"{hub.database} holds {stored} tasks instead of {tasks}"
    if not tasks or finished:
        return
    with hub.client() as client:
        answer = client.get("/api/relay/tasks?to=child&limit=1&wait=5&worker=check&lease=600")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["tasks"]) == 1, answer.text


def _count(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM task").fetchone()[0])


ALL: Final[Mapping[str, Callable[[Plan], list[Line]]]] = {
    "publish": publish,
    "relay": relay,
    "growth": growth,
    "lease": lease,
    "nodes": nodes,
    "start": start,
    "memory": memory,
    "streams": streams,
    "fan-out": fan_out,
    "idle": idle,
    "kenko": kenko,
    "kenko_idle": kenko_idle,
    "grown": grown,
    "journal": journal,
}
