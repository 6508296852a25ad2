"""Where the hub's time goes under load: py-spy if it is there, else cProfile.

py-spy looks from outside some hundred times a second and hardly disturbs; its shares, applied to
the CPU time each thread used, are microseconds a request. cProfile counts every call of the event
loop's thread and makes small functions look dear: read its order, not its figures.
"""

from __future__ import annotations

import pstats
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.cases import (
    PUBLISH_CONFIG,
    batches_for_nodes,
    publish_request,
    tasks_for_nodes,
)
from tests.bench.hubs import HubProcess, Sample, scratch
from tests.bench.plan import Plan, relay_send
from tests.bench.sockets import raise_file_limit
from tests.bench.streams import SETTINGS, fan_load, measure, publishing, stream_load

__all__ = ["PATHS", "profile"]

SAMPLES_A_SECOND: Final = 500
MAIN: Final = "MainThread"
TOP: Final = 60
LEAST_US: Final = 0.2

_TRUNK: Final = ("<frozen", "typer/", "threading.py", "hubbub/cli/", "uvloop/__init__")
"""What everything runs within; nobody wants to read it."""

_FRAME: Final = re.compile(r"(?P<name>.+) \((?P<file>[^()]+?)(:(?P<line>\d+))?\)$")


def _relay(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(plan.load(relay_send()))


def _publish(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(plan.load(publish_request(hub, "nobody.listens")))


def _stored(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(plan.load(publish_request(hub, "bench.stored")))


def _volatile(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(plan.load(publish_request(hub, "nobody.listens", durable=False)))


def _stream(plan: Plan, hub: HubProcess) -> Sample:
    return measure(hub, stream_load(plan, publishing(durable=False), hub.token()))


def _stream_durable(plan: Plan, hub: HubProcess) -> Sample:
    return measure(hub, stream_load(plan, publishing(durable=True), hub.token()))


def _fan_out(plan: Plan, hub: HubProcess) -> Sample:
    return measure(hub, fan_load(plan, hub.token()))


def _nodes(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(batches_for_nodes(plan, hub))


def _nodes_singly(plan: Plan, hub: HubProcess) -> Sample:
    return hub.measure(tasks_for_nodes(plan, hub))


PATHS: Final[Mapping[str, Callable[[Plan, HubProcess], Sample]]] = {
    "relay": _relay,
    "publish": _publish,
    "stored": _stored,
    "volatile": _volatile,
    "stream": _stream,
    "stream-durable": _stream_durable,
    "fan-out": _fan_out,
    "nodes": _nodes,
    "nodes-singly": _nodes_singly,
}
"""What can be profiled, and the load that does it."""


@dataclass(slots=True)
class _Costs:
    """Samples by function, of one thread."""

    samples: int = 0
    alone: Counter[str] = field(default_factory=Counter[str])
    within: Counter[str] = field(default_factory=Counter[str])


def profile(plan: Plan, path: str, *, native: bool = False) -> None:
    """Profile one path at 64 connections and print the top."""
    spy = shutil.which("py-spy")
    with scratch(plan.where) as folder:
        if spy is None:
            _with_cprofile(plan, path, folder)
        else:
            _with_spy(plan, path, folder, spy, native=native)


def _with_spy(plan: Plan, path: str, folder: Path, spy: str, *, native: bool) -> None:
    raw = folder / "stacks.txt"
    raise_file_limit()
    with HubProcess(folder / "hub", config=PUBLISH_CONFIG, settings=SETTINGS) as hub:
        seconds = max(1, int(plan.seconds))
        command = [spy, "record", "--pid", str(hub.pid), "--duration", str(seconds)]
        command += ["--rate", str(SAMPLES_A_SECOND), "--format", "raw", "--output", str(raw)]
        command += ["--threads", "--function"]
        command += ["--native"] if native else []
        samples: list[Sample] = []
        loading = threading.Thread(target=lambda: samples.append(PATHS[path](plan, hub)))
        loading.start()
        subprocess.run(
            command, check=True, timeout=plan.seconds + 60, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        loading.join()
    taken = samples[0]
    print(
        f"{path}: {taken.result.rate:,.0f} requests/s while watched; CPU {taken.cpu_us:.0f} us a "
        f"request, event loop {taken.loop_us:.0f} us"
    )
    threads = read_stacks(raw)
    others = sum(costs.samples for name, costs in threads.items() if MAIN not in name)
    for name, costs in sorted(threads.items(), key=lambda item: -item[1].samples):
        # By the CPU time that was used: samples alone count waiting for a busy processor too.
        if MAIN in name:
            _print_costs(name, costs, taken.loop_us / max(1, costs.samples))
        else:
            _print_costs(name, costs, (taken.cpu_us - taken.loop_us) / max(1, others))


def read_stacks(raw: Path) -> dict[str, _Costs]:
    """Read py-spy's raw format: `thread;outermost;...;innermost count` a line."""
    threads: dict[str, _Costs] = {}
    for line in raw.read_text(encoding="utf-8", errors="replace").splitlines():
        stack, _, count_text = line.rpartition(" ")
        count = int(count_text)
        thread, *frames = stack.split(";")
        costs = threads.setdefault(thread, _Costs())
        costs.samples += count
        names = [_short(frame) for frame in frames] or ["?"]
        costs.alone[names[-1]] += count
        for name in set(names):
            costs.within[name] += count
    return threads


def _short(frame: str) -> str:
    """Return a frame as `package/module.py:line function`."""
    found = _FRAME.fullmatch(frame)
    if found is None:
        return frame
    path = re.sub(r"^.*(site-packages|lib/python3\.\d+|hub|adapters)/", "", found["file"])
    return f"{path}:{found['line'] or 0} {found['name']}"


def _print_costs(thread: str, costs: _Costs, us_a_sample: float) -> None:
    total = costs.samples * us_a_sample
    if total < 1.0:
        return
    print(f"\n{thread}: {total:.1f} us a request")
    print(f"{'alone us':>9}  {'within us':>9}  function")
    shown = costs.alone.most_common(TOP)
    shown += [(name, 0) for name, _ in costs.within.most_common() if not costs.alone[name]]
    for name, count in shown:
        alone, within = count * us_a_sample, costs.within[name] * us_a_sample
        if within >= LEAST_US and not name.startswith(_TRUNK):
            print(f"{alone:9.2f}  {within:9.2f}  {name}")


def _with_cprofile(plan: Plan, path: str, folder: Path) -> None:
    out = folder / "profile.out"
    python = ["-m", "cProfile", "-o", str(out)]
    with HubProcess(folder / "hub", config=PUBLISH_CONFIG, python=python) as hub:
        sample = PATHS[path](plan, hub)
    print(f"{path}: {sample.result.rate:,.0f} requests/s under cProfile (py-spy is not on PATH)")
    stats = pstats.Stats(str(out))
    stats.sort_stats("tottime").print_stats(TOP)
