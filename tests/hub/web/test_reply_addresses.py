"""Where answers go: nobody is written to by an answer whom its author may not write to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from hubbub import Route
from hubbub.testing import RecordingEndpoint
from tests.hub.web.conftest import Served
from tests.hub.web.test_sockets import heard, say, stream
from tests.hub.web.test_work_scopes import Way, bearer, every_way, short

API = "/api/v1"
QUESTION = {"subject": "a.question", "data": "?"}


@every_way
async def test_a_reply_address_needs_the_scope_for_it(served: Served, way: Way) -> None:
    """As `to` does; a plain message, a task, and one that is delivered, are refused alike."""
    served.core.attach(RecordingEndpoint("plugin.desk"))
    served.core.table.put(Route(name="desk", match="a.question", to=("plugin.desk",)))
    token = bearer(await served.token("publish:>", "tasks", "read", "direct:stream.friend"))
    work = {"subject": "a.work", "type": "hubbub.task.request.v1", "data": {"task_type": "x"}}
    for envelope in (QUESTION, work, {"subject": "nobody.here", "data": 1}):
        problem = await way(served, token, {**envelope, "reply_to": "stream.victim"})
        assert (problem["status"], problem["code"]) == (403, "forbidden")
        assert await way(served, token, {**envelope, "reply_to": "stream.friend"}) is None


@asynccontextmanager
async def opened(served: Served, token: str, query: str) -> AsyncGenerator[ClientConnection]:
    """Open a stream, its hello being read."""
    async with stream(served, query, token=token) as connection:
        await heard(connection, "hello")
        yield connection


async def accepted(connection: ClientConnection, **envelope: Any) -> Any:
    """Publish over a stream; returns what is said of it."""
    await say(connection, type="publish", ref="x", envelope=envelope)
    async with asyncio.timeout(10):
        while True:
            frame = json.loads(await connection.recv())
            if frame["type"] in ("accepted", "refused"):
                return frame.get("problem", {}).get("code", "accepted")


async def test_ones_own_address_and_streams_need_no_scope(served: Served) -> None:
    """The caller itself, the stream that publishes, and what the same token has opened."""
    token = bearer(await served.token("publish:a.>", name="same"))
    other = bearer(await served.token("publish:a.>", name="same"))
    async with opened(served, token, "name=mine") as mine, opened(served, other, "name=theirs"):
        for address, problem in (
            ("api.same", None), ("stream.mine", None), ("stream.theirs", "forbidden"),
            ("stream.gone", "forbidden"), ("api.samefoo", "forbidden"),
        ):  # fmt: skip
            answer = await short(served, token, {**QUESTION, "reply_to": address})
            assert (answer and answer["code"]) == problem, address
        for durable in (True, False):
            for address, said in (
                ("stream.mine", "accepted"), ("stream.theirs", "forbidden"),
                ("api.same", "forbidden"),
            ):  # fmt: skip
                said_of_it = await accepted(mine, **QUESTION, reply_to=address, durable=durable)
                assert said_of_it == said, address


@asynccontextmanager
async def victim(served: Served, **more: Any) -> AsyncGenerator[tuple[ClientConnection, str]]:
    """A stream that has published a question; gives it and the question's id."""
    async with opened(served, "the-admin-token-of-the-tests", "name=victim") as connection:
        question = {**QUESTION, "id": "guessed-1", **more}
        await say(connection, type="publish", ref="q", envelope=question)
        yield connection, (await heard(connection, "accepted"))["id"]


@every_way
@pytest.mark.parametrize("durable", [True, False])
async def test_an_answer_is_for_who_was_asked(served: Served, way: Way, durable: bool) -> None:
    """To know the id of a message, by a guess or from history, is not to have been given it."""
    desk = RecordingEndpoint("plugin.desk")
    served.core.attach(desk)
    served.core.table.put(Route(name="desk", match="a.question", to=("plugin.desk",)))
    token = bearer(await served.token("publish:b.>", "read", name="attacker"))
    writer = bearer(await served.token("publish:b.>", "direct:stream.victim", name="writer"))
    async with victim(served, durable=durable) as (connection, number):
        answer = {"subject": "b.answer", "data": "!", "in_reply_to": number}
        problem = await way(served, token, answer)
        assert (problem["status"], problem["code"]) == (403, "forbidden")
        assert "victim" not in problem["detail"]
        assert await way(served, writer, answer) is None
        got = (await heard(connection, "envelope"))["envelope"]
        assert got["source"].endswith("writer") or got["source"].startswith("stream.")
        assert got["subject"] == "b.answer"
        unknown = {"subject": "b.answer", "data": "!", "in_reply_to": "no-such-id"}
        assert await way(served, token, unknown) is None


async def test_who_was_asked_answers(served: Served) -> None:
    """By a subscription or by a route, over the stream or by HTTP; also the answer's answer."""
    subscribed = bearer(await served.token("publish:b.>", "subscribe:a.>", name="subscribed"))
    routed = bearer(await served.token("publish:b.>", name="routed"))
    served.core.table.put(Route(name="to routed", match="a.*", to=("stream.routed",)))
    async with (
        opened(served, subscribed, "name=subscribed&subject=a.>") as one,
        opened(served, routed, "name=routed") as two,
    ):
        for durable in (True, False):
            async with victim(served, id=f"q{durable}", durable=durable) as (connection, number):
                answer = {"subject": "b.answer", "data": "!", "in_reply_to": number}
                for each in (one, two):
                    await heard(each, "envelope")
                    assert await accepted(each, **answer) == "accepted"
                    await heard(connection, "envelope")
                assert await short(served, routed, answer) is None
                got = (await heard(connection, "envelope"))["envelope"]
                assert got["source"] == "api.routed"
                # Now the one who asked goes on, and its partner answers to that.
                await say(
                    connection, type="publish", ref="again",
                    envelope={"subject": "c.more", "data": 2, "in_reply_to": got["id"]},
                )  # fmt: skip
                await heard(connection, "accepted")


async def test_a_conversation_goes_on(served: Served) -> None:
    """An answer was given to who asked, who may answer it in turn."""
    asker = bearer(await served.token("publish:a.>", name="asker"))
    helper = bearer(await served.token("publish:b.>", "subscribe:a.>", name="helper"))
    async with (
        opened(served, asker, "name=asker") as one,
        opened(served, helper, "name=helper&subject=a.question") as two,
    ):
        assert await accepted(one, **QUESTION, durable=False) == "accepted"
        speaker, hearer = two, one
        subjects = {two: "b.answer", one: "a.answer"}
        number = (await heard(two, "envelope"))["envelope"]["id"]
        for _ in range(4):
            envelope = {"subject": subjects[speaker], "data": 1, "in_reply_to": number}
            assert await accepted(speaker, **envelope, durable=False) == "accepted"
            number = (await heard(hearer, "envelope"))["envelope"]["id"]
            speaker, hearer = hearer, speaker


async def test_who_was_given_it_may_answer_after_unsubscribing(served: Served) -> None:
    """Of what is stored it is known who had it."""
    token = bearer(await served.token("publish:b.>", "subscribe:a.>"))
    async with opened(served, token, "name=one&subject=a.>") as one, victim(served) as (_, number):
        await heard(one, "envelope")
        await say(one, type="unsubscribe", subject="a.>")
        await served.core.journal.flush()
        answer = {"subject": "b.answer", "data": "!", "in_reply_to": number}
        assert await accepted(one, **answer) == "accepted"


async def test_nobody_else_answers_a_request(served: Served) -> None:
    """Neither plainly nor with a `to` of his own; however many messages came after it."""
    attacker = bearer(
        await served.token("publish:b.>", "direct:api.attacker", "read", name="attacker")
    )

    async def ask() -> Any:
        body = {**QUESTION, "id": "q-1", "timeout": "20s"}
        return await served.client.post(f"{API}/requests", json=body)

    token = bearer(await served.token("publish:b.>", "subscribe:a.>", name="helper"))
    async with opened(served, token, "name=helper&subject=a.question") as helper:
        asking = asyncio.create_task(ask())
        number = (await heard(helper, "envelope"))["envelope"]["id"]
        ring = served.core.router.origins._ring  # as if many had come after it
        for forgotten in (False, True):
            if forgotten:
                ring.clear()
            for more in ({}, {"to": "api.attacker"}):
                answer = {"subject": "b.forged", "data": "!", "in_reply_to": number, **more}
                problem = await short(served, attacker, answer)
                assert problem["code"] == "forbidden"
        assert not asking.done()
        answer = {"subject": "b.answer", "data": "!", "in_reply_to": number}
        assert await accepted(helper, **answer) == "accepted"
        assert (await asking).json()["subject"] == "b.answer"


async def test_who_might_have_had_a_task_does_not_write_to_its_asker(served: Served) -> None:
    """Of all that do its type only those it was given to may answer the request."""
    query = "&accepts=hubbub.task.request.v1&task_types=echo"
    tokens = [
        bearer(await served.token("publish:b.>", "tasks:echo", name=name)) for name in ("w1", "w2")
    ]
    asker = bearer(await served.token("publish:a.>", "tasks:echo", name="asker"))
    work = {"subject": "a.w", "type": "hubbub.task.request.v1", "data": {"task_type": "echo"}}
    async with (
        opened(served, tokens[0], "name=w1" + query) as one,
        opened(served, asker, "name=asker") as asking,
    ):
        assert await accepted(asking, **work) == "accepted"
        number = (await heard(one, "envelope"))["envelope"]["id"]
        async with opened(served, tokens[1], "name=w2" + query) as two:
            answer = {"subject": "b.half", "data": 0.5, "in_reply_to": number}
            assert await accepted(two, **answer) == "forbidden"
            assert await accepted(one, **answer) == "accepted"
            assert (await heard(asking, "envelope"))["envelope"]["data"] == 0.5


async def test_an_id_that_is_used_again_does_not_turn_answers_away(served: Served) -> None:
    """They go to who said it first; a request's go to whoever asked."""
    thief = bearer(await served.token("publish:a.>", name="thief"))
    helper = bearer(await served.token("publish:b.>", "subscribe:a.question", name="helper"))
    async with opened(served, helper, "name=helper&subject=a.question") as two:
        async with victim(served, durable=False) as (connection, number):
            await heard(two, "envelope")
            again = {"subject": "a.other", "data": 1, "id": number, "durable": False}
            assert await short(served, thief, again) is None
            answer = {"subject": "b.answer", "data": "!", "in_reply_to": number}
            assert await accepted(two, **answer) == "accepted"
            assert (await heard(connection, "envelope"))["envelope"]["subject"] == "b.answer"
        first = {"subject": "a.other", "data": 1, "id": "q-2", "durable": False}
        assert await short(served, thief, first) is None
        body = {**QUESTION, "id": "q-2", "timeout": "20s"}
        asking = asyncio.create_task(served.client.post(f"{API}/requests", json=body))
        await heard(two, "envelope")
        problem = await short(
            served, thief, {"subject": "a.forged", "data": 0, "in_reply_to": "q-2"}
        )
        assert problem["code"] == "forbidden"
        answer = {"subject": "b.answer", "data": "!", "in_reply_to": "q-2"}
        assert await accepted(two, **answer) == "accepted"
        assert (await asking).json()["subject"] == "b.answer"
