"""Whose a stream's name is: who may open it, who may not, and how it becomes free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub.store.reads.endpoints import retained
from hubbub.testing import RecordingEndpoint
from hubbub.values import Principal
from hubbub.web.sockets.names import StreamName
from tests.hub.web.conftest import ADMIN, FAST, Served, serving


async def token_of(served: Served, *scopes: str, name: str = "app") -> tuple[str, str]:
    """Make a token; returns its id and its text."""
    made = await served.client.post("/api/v1/tokens", json={"name": name, "scopes": list(scopes)})
    assert made.status_code == 201, made.text
    return made.json()["id"], made.json()["token"]


@asynccontextmanager
async def stream(
    served: Served, query: str, token: str = ADMIN
) -> AsyncGenerator[tuple[ClientConnection, Any]]:
    """Connect; gives the socket and the hello."""
    url = served.url.replace("http", "ws") + "/api/v1/stream?" + query
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket, json.loads(await heard(socket))


async def heard(socket: ClientConnection) -> str:
    """Return the next frame."""
    async with asyncio.timeout(10):
        return str(await socket.recv())


async def refused(served: Served, query: str, token: str, status: int = 403) -> Any:
    """Return the problem that a handshake is denied with."""
    with pytest.raises(InvalidStatus) as refusal:
        async with stream(served, query, token):
            pass
    response = refusal.value.response
    assert response.status_code == status, response.body
    return json.loads(response.body)


async def made(served: Served, token: str, query: str = "name=x&durable=1") -> None:
    """Make a name, and leave."""
    async with stream(served, query, token):
        pass
    await gone(served, "stream.x")


async def gone(served: Served, address: str) -> None:
    """Wait until nobody has an endpoint open."""
    while (known := served.core.directory.get(address)) is not None and known.present:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_a_durable_name_belongs_to_the_token_that_made_it(served: Served) -> None:
    """A second token of the same name and scopes is refused, present or away, before it is in."""
    _, mine = await token_of(served, "read", "publish:>")
    _, other = await token_of(served, "read", "publish:>")
    async with stream(served, "name=x&durable=1&subject=a.>", mine) as (socket, hello):
        assert hello["resumed"] is False
        assert (await refused(served, "name=x&durable=1", other))["code"] == "name_taken"
        await served.publish("a.b", 1)  # and the first one is still there
        assert json.loads(await heard(socket))["envelope"]["data"] == 1
    await gone(served, "stream.x")
    await served.publish("a.b", 2)
    for query in ("name=x&durable=1", "name=x"):
        assert (await refused(served, query, other))["code"] == "name_taken"
    async with stream(served, "name=x", mine) as (socket, hello):  # durable it stays
        assert hello["resumed"] is True
        assert json.loads(await heard(socket))["envelope"]["data"] == 2
    await gone(served, "stream.x")
    assert served.core.directory.get("stream.x") is not None


async def test_a_name_belongs_to_its_token_over_a_restart(tmp_path: Path) -> None:
    """The store knows the owner; a name of which it knows none is its first opener's."""
    async with serving(tmp_path / "hub", FAST) as served:
        one, mine = await token_of(served, "read")
        _, other = await token_of(served, "read")
        await made(served, mine)
        await made(served, mine, "name=old&durable=1")
        known = served.core.directory.get("stream.old")
        assert known is not None
        known.endpoint.owner = None  # as it was kept before names belonged to anybody
        await served.core.attachments.remember(known.endpoint)
    async with serving(tmp_path / "hub", FAST) as served:
        assert (await served.get("/api/v1/endpoints/stream.x"))["owner"] == one
        await refused(served, "name=x&durable=1", other)
        async with stream(served, "name=x", mine) as (_, hello):
            assert hello["resumed"] is True
        await made(served, other, "name=old")
        await refused(served, "name=old", mine)


async def test_admins_and_tokens_with_the_scope_open_it_too(served: Served) -> None:
    """It stays its owner's as long as the owner's token holds, then it is the replacing one's."""
    first, mine = await token_of(served, "read")
    second, replacing = await token_of(served, "read", "stream:x")
    _, other = await token_of(served, "read", "stream:y")
    await made(served, mine)
    assert (await refused(served, "name=x", other))["code"] == "name_taken"
    for opener in (ADMIN, replacing, mine):
        await made(served, opener)
        assert (await served.get("/api/v1/endpoints/stream.x"))["owner"] == first
    await served.client.delete(f"/api/v1/tokens/{first}")
    await refused(served, "name=x", other)
    await made(served, ADMIN)
    assert (await served.get("/api/v1/endpoints/stream.x"))["owner"] == first
    await made(served, replacing)
    assert (await served.get("/api/v1/endpoints/stream.x"))["owner"] == second


@pytest.mark.parametrize("pattern", ["a%20b", "*", ">", "stream.a%20b", "stream.*"])
async def test_the_scope_is_a_pattern_of_names_or_addresses(served: Served, pattern: str) -> None:
    """`stream:<pattern>` covers the name as one escaped token, or the whole address."""
    _, mine = await token_of(served, "read")
    _, replacing = await token_of(served, "read", f"stream:{pattern}")
    async with stream(served, "name=a+b", mine), stream(served, "name=a+b", replacing):
        pass


async def test_a_name_that_is_not_durable_binds_while_it_is_open(served: Served) -> None:
    """Afterwards another token has it, and gets nothing of what the former one subscribed."""
    _, mine = await token_of(served, "read")
    _, other = await token_of(served, "subscribe:public.>", "publish:>")
    async with stream(served, "name=x&subject=secret.>&ack=manual", mine):
        assert (await refused(served, "name=x", other))["code"] == "name_taken"
        for number in range(3):
            await served.publish("secret.a", number)
    async with stream(served, "name=x&subject=public.>", other) as (socket, hello):
        assert hello["resumed"] is False
        assert served.core.subscriptions.of("stream.x") == ("public.>",)
        await served.publish("secret.a", 9)
        await served.publish("public.a", 10)
        frame = json.loads(await heard(socket))
        assert frame["envelope"]["data"] == 10


@pytest.mark.parametrize("left", ["subscribed", "waiting"])
async def test_a_narrower_token_reads_nothing_that_a_wider_one_subscribed(
    served: Served, left: str
) -> None:
    """Neither by subscriptions that stay, nor what waits of one that was taken back."""
    _, wide = await token_of(served, "subscribe:>")
    _, narrow = await token_of(served, "subscribe:public.>", "stream:x")
    async with stream(served, "name=x&durable=1&ack=manual&subject=secret.>", wide) as (socket, _):
        await served.publish("secret.a", 1)
        await heard(socket)
        if left == "waiting":
            await socket.send('{"type":"unsubscribe","subject":"secret.>"}')
            while served.core.subscriptions.of("stream.x"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        problem = await refused(served, "name=x", narrow)
        assert problem["code"] == "forbidden"
        assert "secret.>" in problem["detail"]
    await gone(served, "stream.x")
    await served.core.journal.flush()
    assert (await refused(served, "name=x", narrow))["code"] == "forbidden"
    async with stream(served, "name=x", wide) as (socket, _):
        await heard(socket)


async def test_of_two_handshakes_at_once_one_is_in(served: Served) -> None:
    """Whoever is first has the name; the other one is refused."""
    tokens = [(await token_of(served, "read"))[1] for _ in range(8)]
    barrier = asyncio.Event()

    async def come(token: str) -> str:
        try:
            async with stream(served, "name=x&durable=1&subject=a.>", token):
                await barrier.wait()
                return "in"
        except InvalidStatus as refusal:
            return str(refusal.response.status_code)

    coming = [asyncio.create_task(come(token)) for token in tokens]
    async with asyncio.timeout(10):
        while sum(task.done() for task in coming) < len(tokens) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    barrier.set()
    assert sorted(await asyncio.gather(*coming)) == ["403"] * 7 + ["in"]


async def test_an_endpoint_of_a_plugin_is_no_stream(served: Served) -> None:
    """Not even an administrator displaces it, or frees its name."""
    served.core.attach(RecordingEndpoint("stream.x"))
    assert (await refused(served, "name=x", ADMIN))["code"] == "name_taken"
    answer = await served.client.delete("/api/v1/endpoints/stream.x")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_freeing_a_name_says_what_waited(served: Served) -> None:
    """What waits becomes dead letters, also over the 256 in memory; then anybody has the name."""
    _, mine = await token_of(served, "read")
    _, other = await token_of(served, "subscribe:public.>")
    await made(served, mine, "name=x&durable=1&subject=a.>")
    for _ in range(4):
        batch = [{"subject": "a.b", "data": n} for n in range(75)]
        assert (await served.client.post("/api/v1/envelopes", json=batch)).status_code == 202
    freed = await served.client.delete("/api/v1/endpoints/stream.x")
    assert freed.json() == {"address": "stream.x", "dead_letters": 300}
    dead = await served.pages("/api/v1/deliveries", outcome="dead", limit=1000)
    assert {(one["endpoint"], one["reason"]) for one in dead} == {("stream.x", "endpoint_gone")}
    assert len(dead) == 300
    [entry] = [one for one in await served.pages("/api/v1/audit") if one["act"] == "endpoint.free"]
    assert entry["target"] == "stream.x"
    assert (await served.client.delete("/api/v1/endpoints/stream.x")).status_code == 404
    assert (await served.publish("a.b", 1))["outcome"] == "unrouted"
    async with stream(served, "name=x&durable=1", other) as (_, hello):
        assert hello["resumed"] is False


async def test_freeing_a_name_closes_its_connection(served: Served) -> None:
    """With 4410; what it had in hand and did not answer is among the dead letters."""
    _, mine = await token_of(served, "read", "publish:>")
    async with stream(served, "name=x&durable=1&ack=manual&subject=a.>", mine) as (socket, _):
        for number in range(3):
            await served.publish("a.b", number)
        await heard(socket)
        freed = await served.client.delete("/api/v1/endpoints/stream.x")
        assert freed.json()["dead_letters"] == 3
        with pytest.raises(ConnectionClosed):
            await heard(socket)
        assert socket.close_code == 4410
    assert await served.core.read(retained) == []


async def test_only_administrators_free_names(served: Served) -> None:
    """403 for everybody else, 404 for what is not known."""
    _, mine = await token_of(served, "read", "stream:x")
    await made(served, mine)
    headers = {"authorization": f"Bearer {mine}"}
    answer = await served.client.delete("/api/v1/endpoints/stream.x", headers=headers)
    assert answer.status_code == 403
    assert (await served.client.delete("/api/v1/endpoints/stream.none")).status_code == 404


async def test_a_name_whose_client_has_just_left_is_free(served: Served) -> None:
    """Before a timer has told so, and with nothing of what was for the one who left."""
    _, mine = await token_of(served, "read")
    other = Principal("other", "api.other", frozenset({"subscribe:b.>"}), id="other")
    async with stream(served, "name=x&subject=a.>&ack=manual", mine):
        await served.publish("a.b", 1)
        link = served.core.room.link_of("stream.x")
        assert link is not None
        served.core.attachments.detach(link)
        name = StreamName(served.core, other, "x")
        await name.check_all()
        name.check()
        assert name.holder is None
        assert served.core.subscriptions.of("stream.x") == ()
    [dead] = (await served.get("/api/v1/deliveries", outcome="dead"))["items"]
    assert dead["reason"] == "endpoint_gone"
