"""Who is a worker: who names task requests, and declares the type where nobody wrote a route."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Endpoint, Envelope, Route
from hubbub.conversion import Conversions, Converter
from hubbub.core import Core
from hubbub.delivery.mailbox import pool_name, requirement_of
from hubbub.directory import Directory
from hubbub.envelope import CHAT_MESSAGE, EVENT, TASK_REQUEST
from hubbub.testing import FakeClock, RecordingEndpoint, running_hub, settle
from hubbub.values import PresenceState, Receipt, Requirement, Submission, TaskState

BOTH = ("*", TASK_REQUEST)


async def submit(core: Core, task_type: str = "echo", subject: str | None = None) -> Receipt:
    return await core.submit(Submission(task_type=task_type, source="api.test", subject=subject))


def attached(core: Core, address: str, **how: Any) -> RecordingEndpoint:
    endpoint = RecordingEndpoint(address, **how)
    core.attach(endpoint)
    return endpoint


def _same(envelope: Envelope) -> Envelope:
    return envelope


async def state_of(core: Core, receipt: Receipt) -> TaskState:
    task = await core.work.find(receipt.task_id or "")
    assert task is not None
    return task.state


TAKERS: dict[str, tuple[dict[str, Any], ...]] = {
    "everything, in any of two ways": ({}, {"accepts": ("*",)}, {"accepts": ("*", EVENT)}),
    "task types, but no requests": ({"task_types": ("*",)}, {"task_types": ("echo",)}),
    "requests, but no task types": ({"accepts": (TASK_REQUEST,)}, {"accepts": BOTH}),
    "other task types": ({"accepts": BOTH, "task_types": ("render", "*echo", "")},),
    "what a converter makes of requests": ({"accepts": (EVENT,), "task_types": ("*",)},),
}


@pytest.mark.parametrize("kinds", TAKERS.values(), ids=TAKERS)
async def test_nobody_works_by_default(core: Core, kinds: tuple[dict[str, Any], ...]) -> None:
    """A task that nobody routed waits for who declares its type; all others never see it."""
    core.conversions.add(Converter(TASK_REQUEST, EVENT, _same), plugin="test")
    idle = [attached(core, f"plugin.idle{place}", **how) for place, how in enumerate(kinds)]
    receipt = await submit(core)
    elsewhere = await submit(core, subject="orders.echo")
    await settle()
    assert [one.taken for one in idle] == [[]] * len(idle)
    assert await state_of(core, receipt) is TaskState.QUEUED
    worker = attached(core, "plugin.worker", accepts=(TASK_REQUEST,), task_types=("*",))
    given = await worker.wait_for(1)
    for link in core.room.links():
        link.slots = 5
    given = await worker.wait_for(2)
    assert {str(one.id) for one in given} == {receipt.id, elsewhere.id}
    for link in core.room.links():
        link.close()


@pytest.mark.parametrize("to", ["plugin.worker", "plugin.*", ">"], ids=str)
async def test_a_route_reaches_who_declares_no_types(core: Core, to: str) -> None:
    """Whoever wrote it knows whom it names; by a pattern too, be that the hub's own."""
    core.table.put(Route(name="work", match="jobs.>", to=(to,), deliver="one"))
    attached(core, "plugin.aaa")
    worker = attached(core, "plugin.worker", accepts=BOTH)
    receipt = await submit(core, subject="jobs.echo")
    (given,) = await worker.wait_for(1)
    assert given.id == receipt.id
    for link in core.room.links():
        link.close()


async def test_what_is_declared_binds_a_route_and_an_address_too(core: Core) -> None:
    """A literal that does not do the type is dead at once; of several, one that does has it."""
    render = attached(core, "plugin.render", accepts=BOTH, task_types=("render",))
    anything = attached(core, "plugin.any", accepts=BOTH)
    pinned = Submission(task_type="echo", source="api.test", to=("plugin.render",))
    assert await state_of(core, await core.submit(pinned)) is TaskState.FAILED
    several = Submission(task_type="echo", source="api.test", to=("plugin.render", "plugin.any"))
    await core.submit(several)
    await anything.wait_for(1)
    assert render.taken == []
    for link in core.room.links():
        link.close()


async def test_a_subscriber_that_does_no_work_does_not_swallow_it(core: Core) -> None:
    """Its subscription is no route for a task; one of a worker is, and needs no declaration."""
    listener = attached(core, "plugin.listener")
    await core.subscribe(listener, "orders.>")
    worker = attached(core, "plugin.worker", accepts=BOTH)
    receipt = await submit(core, subject="orders.echo")
    await settle()
    assert await state_of(core, receipt) is TaskState.QUEUED
    await core.subscribe(worker, "orders.*")
    again = await submit(core, subject="orders.echo")
    (given,) = await worker.wait_for(1)
    assert (given.id, listener.taken) == (again.id, [])
    event = Envelope.new(source="plugin.test", subject="orders.echo")
    await core.publish(event)
    await listener.wait_for(1)
    for link in core.room.links():
        link.close()


async def test_a_task_that_waited_is_not_for_who_declares_less_now(
    core: Core, clock: FakeClock
) -> None:
    """The next endpoint of that address does other types; it is dead, and never handed over."""
    first = Endpoint(address="plugin.worker", accepts=BOTH, linger_s=None)
    core.attach(first).close()
    work = Submission(task_type="echo", source="api.test", to=("plugin.worker",))
    receipt = await core.submit(work)
    second = attached(core, "plugin.worker", accepts=BOTH, task_types=("render",), linger_s=None)
    await settle()
    await clock.advance(1)
    await core.journal.flush()
    assert second.taken == []
    assert await state_of(core, receipt) is TaskState.FAILED


async def test_a_pool_of_an_older_hub_waits_on_after_a_restart(tmp_path: Path) -> None:
    """Its name is as it was: those who declare the type have it."""
    async with running_hub(tmp_path) as core:
        await submit(core)
        names = {box.name for box in core.room.boxes if box.requirement is not None}
        assert names == {f'pool:[[">"],[],"{TASK_REQUEST}","echo"]'}
    async with running_hub(tmp_path) as core:
        idle = attached(core, "plugin.idle", accepts=BOTH)
        worker = attached(core, "plugin.worker", accepts=BOTH, task_types=("echo",))
        await worker.wait_for(1)
        assert idle.taken == []
        for link in core.room.links():
            link.close()


tokens = st.sampled_from(["a", "b", "*", ">", "echo"])
requirements = st.builds(
    Requirement,
    st.tuples(tokens) | st.tuples(tokens, tokens),
    st.sampled_from([(), (("gpu", "yes"),)]),
    st.sampled_from([TASK_REQUEST, EVENT]),
    st.none() | st.sampled_from(["echo", "render", "*"]),
    st.booleans(),
)


@given(requirements)
def test_a_pools_name_says_what_it_requires(requirement: Requirement) -> None:
    """Whatever it is, a restart reads the same."""
    assert requirement_of(pool_name(requirement)) == requirement


TYPES = [EVENT, CHAT_MESSAGE, "*", "app.job.v1", "hubbub.task.request.v2", TASK_REQUEST]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(TYPES), max_size=4),
    st.none() | st.lists(st.sampled_from(["echo", "render", "*", "echo.*"]), max_size=3),
    requirements,
    st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(TYPES)), max_size=6),
)
def test_who_does_not_name_the_type_is_in_no_pool_for_work(
    accepts: list[str],
    task_types: list[str] | None,
    requirement: Requirement,
    converters: list[tuple[str, str]],
) -> None:
    """Whatever it accepts, declares and can be converted to, and whatever is asked for."""
    conversions = Conversions()
    for from_type, to_type in converters:
        if from_type != to_type:
            conversions.add(Converter(from_type, to_type, _same), plugin="test")
    directory = Directory(conversions)
    endpoint = Endpoint(address="a", accepts=accepts, task_types=task_types, labels={"gpu": "yes"})
    directory.put(endpoint, PresenceState.ONLINE)
    member = "a" in directory.eligible(requirement)
    assert member == directory.covers(requirement, endpoint)
    if not member or requirement.type != TASK_REQUEST:
        return
    assert TASK_REQUEST in accepts
    assert conversions.chain(TASK_REQUEST, endpoint.accepts) == ()
    if requirement.task_type is not None and task_types is not None:
        assert requirement.task_type in task_types or "*" in task_types
    if requirement.task_type is not None and requirement.declared:
        assert task_types is not None


async def test_the_manuals_first_plugin_beside_a_worker(tmp_path: Path) -> None:
    """It takes what is published for it, and none of the work that waits for a node."""
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    plugin = type("Plugin", (), {})()
    members: dict[str, object] = {}
    exec(compile(code, "hubbub_shout.py", "exec"), members)  # of our own page
    for name in ("routes", "startup"):
        setattr(plugin, name, members[name])
    async with running_hub(tmp_path, plugins={"shout": plugin}) as core:
        waiting = await submit(core)
        named = await submit(core, subject="shout.echo")
        await settle()
        assert await state_of(core, waiting) is TaskState.QUEUED
        # Its own route names it, and it takes no work: that is said at once.
        assert await state_of(core, named) is TaskState.FAILED
        worker = attached(core, "octohub.node.a", accepts=(TASK_REQUEST,), task_types=("echo",))
        (given_one,) = await worker.wait_for(1)
        assert given_one.id == waiting.id
        await asyncio.sleep(0)
        for link in core.room.links():
            link.close()


async def test_the_route_for_tasks_takes_nothing_else(core: Core) -> None:
    """What is no request is for nobody there, though anybody might take it."""
    taker = attached(core, "plugin.taker", accepts=BOTH, task_types=("*",))
    event = Envelope.new(source="plugin.test", subject="tasks.echo.request")
    receipt = await core.publish(event)
    assert (receipt.outcome, receipt.reason) == ("unrouted", "no_route")
    assert taker.taken == []
