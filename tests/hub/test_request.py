"""Request and reply: one envelope out, one answer back, nothing stored."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from hubbub import Envelope, Route
from hubbub.core import Core
from hubbub.errors import DeadlineError, NoEndpointError
from hubbub.store.reads import envelopes
from hubbub.testing import FakeClock, RecordingEndpoint, settle


def question() -> Envelope:
    return Envelope.new(source="api.test", subject="questions.six", data={"times": 7})


def asked_of(core: Core) -> RecordingEndpoint:
    """An endpoint that takes questions."""
    oracle = RecordingEndpoint("plugin.oracle")
    core.attach(oracle)
    core.table.put(Route(name="questions", match="questions.>", to=("plugin.oracle",)))
    return oracle


async def test_an_answer_reaches_the_one_who_waits(core: Core) -> None:
    """The answer is on the request's trace, one hop further, and neither is stored."""
    oracle = asked_of(core)
    asking = asyncio.create_task(core.asking.request(question(), timeout_s=5))
    (taken,) = await oracle.wait_for(1)
    answer = Envelope.new(
        source="plugin.oracle", subject="answers.six", data=42, in_reply_to=taken.id
    )
    receipt = await core.publish(answer)
    reply = await asking
    assert (receipt.outcome, receipt.deliveries) == ("accepted", 1)
    assert reply.json() == 42
    assert reply.trace_id == taken.trace_id
    assert reply.hops == taken.hops + 1
    for name in (taken.id, reply.id):
        assert await core.read(partial(envelopes.one, envelope_id=name)) is None


async def test_nobody_there_is_told_at_once(core: Core) -> None:
    """Without an endpoint there is nothing to wait for."""
    with pytest.raises(NoEndpointError):
        await core.asking.request(question(), timeout_s=5)


async def test_a_deadline_ends_the_wait_and_a_late_answer_is_counted(
    core: Core, clock: FakeClock
) -> None:
    """After the deadline the caller has its error, and the answer nobody."""
    oracle = asked_of(core)
    asking = asyncio.create_task(core.asking.request(question(), timeout_s=5))
    (taken,) = await oracle.wait_for(1)
    await clock.advance(5.1)
    with pytest.raises(DeadlineError):
        await asking
    await core.publish(
        Envelope.new(source="plugin.oracle", subject="answers.six", in_reply_to=taken.id)
    )
    await settle()
    assert b"hubbub_replies_late_total 1.0" in core.metrics.render()


async def test_the_first_answer_counts(core: Core) -> None:
    """A second answer does not replace the first one."""
    oracle = asked_of(core)
    asking = asyncio.create_task(core.asking.request(question(), timeout_s=5))
    (taken,) = await oracle.wait_for(1)
    for number in (1, 2):
        await core.publish(
            Envelope.new(
                source="plugin.oracle", subject="answers.six", data=number, in_reply_to=taken.id
            )
        )
    assert (await asking).json() == 1
