"""Names come into use when they are named: what comes for one that nobody has used is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hubbub import Envelope
from hubbub.envelope import CHAT_MESSAGE
from hubbub.values import Submission
from tests.adapters.relay.serving import SETTINGS, Relay, RunRelay

if TYPE_CHECKING:
    from hubbub import Receipt

CHAT = {"text": "hi", "sender": {"id": "1"}, "conversation": {"id": "1", "kind": "private"}}


def route(**more: str) -> str:
    """Return settings with a route for chat."""
    lines = {"name": '"r"', "match": '"qq.>"', **more}
    return SETTINGS + "[[routes]]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items())


async def say(relay: Relay, subject: str = "qq.says", **more: Any) -> Receipt:
    """Publish chat, volatile as socket adapters do."""
    envelope = Envelope.new(source="qq.1", subject=subject, type=CHAT_MESSAGE, data=CHAT, **more)
    return await relay.core.publish(envelope.replace(durable=False))


ROUTES = {
    "literal": (route(to='["relay.archive"]'), "qq.says"),
    "template": (route(to='["relay.{subject.1}"]'), "qq.archive"),
    "one": (route(to='["relay.archive"]', deliver='"one"'), "qq.says"),
    "one of two": (route(to='["relay.archive", "nobody.x"]', deliver='"one"'), "qq.says"),
    "sticky": (route(to='["relay.archive"]', deliver='"sticky"', key='"data.text"'), "qq.says"),
    "its own route": (SETTINGS, "relay.archive.message"),
}


@pytest.mark.parametrize(("toml", "subject"), ROUTES.values(), ids=ROUTES)
async def test_chat_for_a_name_that_nobody_has_used_is_kept(
    run_relay: RunRelay, toml: str, subject: str
) -> None:
    """In its log, over a restart; whoever comes by that name finds it."""
    async with run_relay(toml) as relay:
        receipt = await say(relay, subject)
        assert (receipt.outcome, receipt.deliveries) == ("accepted", 1)
        async with asyncio.timeout(10):
            while not await relay.logs(to="archive"):  # noqa: ASYNC110  # a pool gives it out later
                await asyncio.sleep(0.01)
    async with run_relay(toml) as relay:
        [record] = await relay.logs(to="archive")
        assert (record["event"], record["text"]) == ("send", "hi")
        assert [one.address for one in relay.core.known("relay.archive")] == ["relay.archive"]


async def test_a_name_in_to_comes_into_use(relay: Relay) -> None:
    """Without a route."""
    assert (await say(relay, to=("relay.archive",))).deliveries == 1
    assert len(await relay.logs(to="archive")) == 1


async def test_a_task_waits_for_a_name_that_nobody_has_used(run_relay: RunRelay) -> None:
    """And its worker may come after a restart; a result goes to a name in `reply_to`."""
    work = Submission(
        task_type="render", source="api.x", subject="tasks.render.request", params={},
        to=("relay.late",), reply_to="relay.asker",
    )  # fmt: skip
    async with run_relay() as relay:
        task_id = (await relay.core.submit(work)).task_id
        assert [one["to"] for one in await relay.logs(task_id=task_id)] == ["late"]
    async with run_relay() as relay:
        [task] = await relay.lease("late")
        assert task["task_id"] == task_id
        await relay.callback(str(task_id), status="done")
        assert {one.address for one in relay.core.known("relay.*")} >= {
            "relay.late", "relay.asker",
        }  # fmt: skip


async def test_an_answer_to_a_name_that_nobody_has_used_is_kept(relay: Relay) -> None:
    """Who asked may have given a name for the answer only."""
    asked = await relay.core.publish(
        Envelope.new(source="api.x", subject="a.b", type="t", data=1, reply_to="relay.asker")
    )
    answered = await relay.core.publish(
        Envelope.new(
            source="api.y", subject="a.c", type=CHAT_MESSAGE, data=CHAT, in_reply_to=asked.id
        )
    )
    assert answered.deliveries == 1
    assert len(await relay.logs(to="asker")) == 1


@pytest.mark.parametrize("address", ["relay.a.b", "relay.%61", "relay.a%0Ab", "relay." + "x" * 129])
async def test_what_is_no_name_is_nobody(relay: Relay, address: str) -> None:
    """Nor is another way to write one."""
    assert (await say(relay, to=(address,))).reason == "no_endpoint"
    assert relay.core.known("relay.>") == []


async def test_a_pattern_names_nobody(run_relay: RunRelay) -> None:
    """It covers those that are there."""
    async with run_relay(route(to='["relay.*"]')) as relay:
        assert (await say(relay)).reason == "no_endpoint"
        assert relay.core.known("relay.>") == []


async def test_a_dry_run_makes_no_name(run_relay: RunRelay) -> None:
    """It tells what would come of it."""
    async with run_relay(route(to='["relay.archive"]')) as relay:
        from hubbub.web.api.routes import dry_run

        envelope = Envelope.new(source="qq.1", subject="qq.says", type=CHAT_MESSAGE, data=CHAT)
        told: Any = dry_run(relay.core, envelope.replace(id="x", time_us=1, hops=1))
        assert told["to"] == ["relay.archive"]
        assert relay.core.known("relay.*") == []


async def test_the_number_of_names_is_bounded(run_relay: RunRelay) -> None:
    """Those that are named count as those that send."""
    async with run_relay(SETTINGS + "max_names = 3\n") as relay:
        await relay.send()  # master, child
        for name, there in (("one", 1), ("two", 0), ("one", 1), ("child", 1)):
            assert (await say(relay, to=(f"relay.{name}",))).deliveries == there
        body = {"from": "master", "to": "two"}
        assert (await relay.client.post("/send", json=body)).status_code == 429
        body = {"from": "master", "to": "one"}
        assert (await relay.client.post("/send", json=body)).status_code == 200
