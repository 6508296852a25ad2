"""What a route says of durability, where it finds nobody to give the message to."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from hubbub import Envelope, Receipt, Route
from hubbub.core import Core
from hubbub.envelope import TASK_UPDATE
from hubbub.store.reads import envelopes as reads
from hubbub.testing import RecordingEndpoint
from hubbub.values import Submission

NOBODY: dict[str, dict[str, Any]] = {
    "literal": {"to": ("plugin.nobody",)},
    "pattern": {"to": ("plugin.nobody.*",)},
    "pool": {"to": ("plugin.nobody.*",), "deliver": "one"},
    "sticky": {"to": ("plugin.nobody.*",), "deliver": "sticky"},
    "labels": {"to": ("plugin.*",), "labels": {"gpu": "yes"}},
    "no such token": {"to": ("plugin.{subject.9}",)},
    "fallback": {"to": ("plugin.nobody",), "fallback": True},
}


async def publish(core: Core, *routes: Route, durable: bool | None = False) -> Receipt:
    """Publish one message on `a` with these routes in the table."""
    core.attach(RecordingEndpoint("plugin.here"))
    for route in routes:
        core.table.put(route)
    return await core.publish(Envelope.new(source="t", subject="a", durable=durable))


async def stored(core: Core, receipt: Receipt) -> str | None:
    """Return why a stored envelope is unrouted, empty for one that is not; None: not stored."""
    found = await core.database.read(lambda session: reads.one(session, receipt.id))
    return None if found is None else found.reason or ""


def route(name: str = "r", *, durable: bool | None, **how: Any) -> Route:
    """Return a route for the message."""
    how.setdefault("to", ("plugin.nobody",))
    return Route(name=name, match="a", durable=durable, **how)


@pytest.mark.parametrize("how", NOBODY.values(), ids=NOBODY)
async def test_a_durable_route_that_finds_nobody_stores(core: Core, how: dict[str, Any]) -> None:
    """The publisher asked for nothing; the word of the route holds."""
    receipt = await publish(core, route(durable=True, **how))
    assert (receipt.outcome, receipt.reason) == ("unrouted", "no_endpoint")
    assert await stored(core, receipt) == "no_endpoint"


@pytest.mark.parametrize("how", NOBODY.values(), ids=NOBODY)
async def test_a_volatile_route_that_finds_nobody_does_not(core: Core, how: dict[str, Any]) -> None:
    """Its word wins over that of the publisher, as it does where it finds an endpoint."""
    receipt = await publish(core, route(durable=False, **how), durable=True)
    assert receipt.reason == "no_endpoint"
    assert await stored(core, receipt) is None


async def test_a_durable_route_that_holds_keeps_what_is_volatile(core: Core) -> None:
    """It waits for an endpoint, and is stored while it does."""
    receipt = await publish(core, route(durable=True, hold_s=60.0))
    assert (receipt.outcome, receipt.deliveries) == ("accepted", 1)
    assert await stored(core, receipt) == ""


@pytest.mark.parametrize(
    ("words", "asked", "kept"),
    [
        ((False, True), False, True),
        ((True, False), False, True),
        ((False, None), True, True),
        ((False, None), False, False),
        ((False, False), True, False),
        ((None,), None, True),
    ],
)
async def test_of_several_routes_one_durable_is_enough(
    core: Core, words: tuple[bool | None, ...], asked: bool | None, kept: bool
) -> None:
    """A route that says nothing leaves it to the publisher, and he to the source."""
    routes = [route(f"r{place}", durable=word) for place, word in enumerate(words)]
    receipt = await publish(core, *routes, durable=asked)
    assert (await stored(core, receipt) is not None) is kept


async def test_somebody_else_who_takes_it_does_not_unstore_it(core: Core) -> None:
    """A volatile subscription beside the durable route changes nothing for that one."""
    receipt = await publish(
        core,
        route("kept", durable=True),
        route("watched", durable=False, to=("plugin.here",)),
    )
    assert (receipt.outcome, receipt.deliveries) == ("accepted", 1)
    assert await stored(core, receipt) == ""


async def test_a_route_that_does_not_match_has_no_word(core: Core) -> None:
    """Neither its condition nor that of a fallback beside one that matched is enough."""
    receipt = await publish(
        core,
        route("other", durable=True, where={"data.n": 1}),
        route("last", durable=True, fallback=True),
        route("mine", durable=None),
    )
    assert receipt.reason == "no_endpoint"
    assert await stored(core, receipt) is None


async def test_changes_of_a_task_are_stored_by_a_durable_route(core: Core) -> None:
    """They are volatile by themselves; without a store they were lost to that route."""
    archive = RecordingEndpoint("plugin.archive", accepts=(TASK_UPDATE,))
    core.attach(archive)
    core.table.put(
        Route(
            name="log", match="tasks.>", types=(TASK_UPDATE,), to=("plugin.archive",), durable=True
        )
    )
    worker = RecordingEndpoint("node.a", accepts=("hubbub.task.request.v1",), task_types=("x",))
    link = core.attach(worker)
    try:
        await core.submit(Submission(task_type="x", source="t"))
        await worker.wait_for(1)
        await archive.wait_for(2)
    finally:  # a stop would wait for its task, on the clock of the test
        link.close()
    assert [one.subject for one in archive.taken] == ["tasks.x.queued", "tasks.x.dispatched"]
    kept = [
        await core.database.read(partial(reads.one, envelope_id=told.id)) for told in archive.taken
    ]
    assert None not in kept
