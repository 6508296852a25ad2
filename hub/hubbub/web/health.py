"""Alive, ready, and measured."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from hubbub.config import AdapterSettings
from hubbub.core import Core
from hubbub.delivery.mailbox import requirement_of
from hubbub.errors import StoreUnavailableError
from hubbub.observe.labels import Key
from hubbub.store.reads import tasks as task_reads
from hubbub.values import TaskState
from hubbub.web.auth import authenticated, need
from hubbub.web.calls import OPEN, Call, Operation, Reply, Spec
from hubbub.web.request_trust import is_local
from hubbub.web.shapes_of_the_hub import (
    AdapterPart,
    Health,
    HubPart,
    Part,
    Parts,
    PluginPart,
    Readiness,
)

__all__ = ["OPERATIONS", "fill_gauges", "hub_version"]

TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"


def hub_version() -> str:
    """Return the version of this package."""
    try:
        return version("hubbub")
    except PackageNotFoundError:
        return "unknown"


async def alive(call: Call) -> Reply:
    """Tell that the process answers."""
    del call
    return Reply(200, Health("alive", hub_version()))


async def ready(call: Call) -> Reply:
    """Tell whether the hub takes messages, with the culprit named."""
    core = call.core
    problem, held = core.journal.problem, core.hold.reason
    adapters: dict[str, AdapterPart] = {}
    culprits: list[str] = []
    if core.state != "ready":
        culprits.append(f"hub: {core.state}")
    if problem is not None:
        culprits.append(f"store: {problem}")
    for one in core.adapters:
        adapters[one.name] = AdapterPart(one.state, one.reason or None, one.settings.required)
        if _is_missing(one.settings, one.state):
            culprits.append(f"adapter {one.name}: {one.reason or one.state}")
    parts = Parts(
        hub=HubPart(core.state),
        store=Part("up" if problem is None else "failed", problem),
        adapters=adapters,
        plugins={
            plugin.name: PluginPart(plugin.state, plugin.reason or None) for plugin in core.plugins
        },
        retention=None if held is None else Part("held", held),
    )
    if culprits:
        return Reply(503, Readiness("not ready", parts, culprits))
    return Reply(200, Readiness("ready", parts))


def _is_missing(settings: AdapterSettings, state: str) -> bool:
    return settings.required and state != "up"


async def metrics(call: Call) -> Reply:
    """Render all metrics, in a thread; open to local requests only."""
    core = call.core
    if not is_local(call.scope):
        need(authenticated(core, call.scope), ("read",))
    await fill_gauges(core)
    text = await asyncio.to_thread(core.metrics.render)
    return Reply(200, text, TEXT)


async def fill_gauges(core: Core) -> None:
    """Set the gauges that are counted when somebody looks."""
    metrics = core.metrics
    metrics.build_info[hub_version()].set(1)
    metrics.routes.set(len(core.table))
    waiting: Counter[Key] = Counter()
    for box in core.room.boxes:
        waiting[_adapter_of(box.name)] += box.depth
    metrics.mailbox_depth.fill(waiting)
    metrics.endpoints.fill(
        Counter((known.endpoint.adapter, known.state.value) for known in core.directory)
    )
    metrics.breakers.fill(
        Counter((adapter, state.value) for adapter, state in core.room.guards.states())
    )
    tasks: Counter[Key] = Counter({state.value: 0 for state in TaskState})
    tasks.update(core.finished)
    with suppress(
        SQLAlchemyError, StoreUnavailableError
    ):  # a broken store must not hide the other metrics
        tasks.update(await core.read(task_reads.counts))
    metrics.tasks.fill(tasks)
    await metrics.refresh()


def _adapter_of(mailbox: str) -> str:
    """Return whose mailbox it is; `pool` where endpoints of several adapters may take from it."""
    requirement = requirement_of(mailbox)
    patterns = (mailbox,) if requirement is None else requirement.patterns
    adapters = {pattern.split(".", 1)[0] for pattern in patterns}
    return adapters.pop() if len(adapters) == 1 and not adapters & {"*", ">"} else "pool"


OPERATIONS: Final = (
    Operation(
        "GET", "/healthz", alive, "Whether the process answers", OPEN, Spec(answers={200: Health})
    ),
    Operation(
        "GET",
        "/readyz",
        ready,
        "Whether the hub takes messages",
        OPEN,
        Spec(answers={200: Readiness, 503: Readiness}),
    ),
    Operation(
        "GET",
        "/metrics",
        metrics,
        "Metrics for Prometheus; open to local requests, else for the scope `read`",
        OPEN,
        Spec(answers={200: "text/plain"}, problems=(401, 403)),
    ),
)
