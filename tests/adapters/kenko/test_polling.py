"""The polling transport, byte for byte: what is answered 200 was taken, all else is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from hubbub_kenko import events
from hubbub_kenko.events import _encoded
from hubbub_kenko.wire import FrameError
from hubbub_kenko.wire.polling import (
    MAX_ATTACHMENTS,
    MAX_PACKETS,
    MAX_POLLED,
    Packet,
    PayloadError,
    read_payload,
)
from tests.adapters.kenko.serving import Kenko, running_kenko

LARGEST = 4096


class Poller:
    """A client of the polling transport that is no library."""

    def __init__(self, http: httpx2.AsyncClient, sid: str) -> None:
        self._http = http
        self.path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"

    async def post(self, *packets: str, **how: Any) -> httpx2.Response:
        """Post packets."""
        return await self._http.post(self.path, content="\x1e".join(packets).encode(), **how)

    async def poll(self) -> list[str]:
        """Return what one poll gives, without the server's own pings."""
        answer = await self._http.get(self.path)
        assert answer.status_code == 200, answer.text
        return [one for one in answer.text.split("\x1e") if one != "2"]

    async def events(self, number: int) -> list[Any]:
        """Return so many events, name and arguments."""
        found: list[Any] = []
        while len(found) < number:
            found += [json.loads(one.partition(",")[2]) for one in await self.poll()]
        return found


@asynccontextmanager
async def polling(kenko: Kenko, *, register: bool = True) -> AsyncGenerator[Poller]:
    """Begin a session, and register an application."""
    answer = await kenko.http.get("/socket.io/?EIO=4&transport=polling")
    client = Poller(kenko.http, json.loads(answer.text[1:])["sid"])
    if register:
        assert (await client.post("40/client,")).status_code == 200
        await client.poll()
        await client.post(event("auth", {"name": "poller"}))
        assert [name for name, *_ in await client.events(3)] == ["auth", "register", "start"]
    yield client
    await client.post("1")


def event(name: str, *arguments: Any) -> str:
    """Return an event as a packet."""
    return "42/client," + json.dumps([name, *arguments])


@pytest.fixture
async def kenko(tmp_path: Any) -> AsyncIterator[Kenko]:
    """A hub whose clients send small messages."""
    async with running_kenko(tmp_path, f"max_message_bytes = {LARGEST}") as running:
        yield running


async def said(kenko: Kenko, number: int) -> None:
    """Check that so many messages of applications were published."""
    value = kenko.core.metrics.registry.get_sample_value(
        "hubbub_envelopes_accepted_total", {"adapter": "kenko"}
    )
    assert (value or 0) == number


@pytest.mark.parametrize("number", [16, 17, 100])
async def test_packets_of_one_post_are_taken(kenko: Kenko, number: int) -> None:
    """More than the library takes by itself: it answered 200 and took none."""
    async with polling(kenko) as client:
        answer = await client.post(*[event("ping")] * number)
        assert (answer.status_code, answer.text) == (200, "OK")
        assert await client.events(number) == [["pong"]] * number


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 400)])
async def test_packets_are_bounded(tmp_path: Any, over: int, status: int) -> None:
    """At the limit all, over it none."""
    async with running_kenko(tmp_path) as kenko, polling(kenko) as client:
        packets = [event("dance")] * (MAX_PACKETS + over)
        answer = await client.post(*packets[:-1], event("message", {"content": "last"}))
        assert answer.status_code == status, answer.text
        assert ("the limit is" in answer.text) == bool(over)
        await said(kenko, 1 - over)


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 413)])
async def test_a_body_is_bounded(kenko: Kenko, over: int, status: int) -> None:
    """And its session goes on."""
    async with polling(kenko) as client:
        packet = event("dance", "")
        packet = event("dance", "x" * (LARGEST + over - len(packet)))
        assert len(packet) == LARGEST + over
        assert (await client.post(packet)).status_code == status
        assert (await client.post(event("ping"))).status_code == 200
        assert await client.events(1) == [["pong"]]


async def test_a_body_without_a_length_is_read(kenko: Kenko) -> None:
    """In chunks: the library took nothing of it, and answered 200."""

    async def chunks() -> AsyncIterator[bytes]:
        packet = event("ping").encode()
        yield packet[:9]
        yield packet[9:]

    async with polling(kenko) as client:
        answer = await kenko.http.post(client.path, content=chunks())
        assert answer.status_code == 200
        assert await client.events(1) == [["pong"]]


BAD: dict[str, bytes | str] = {
    "not UTF-8": b'42/client,["x","\xff"]',
    "half a surrogate pair": '42/client,["message",{"content":"\\ud800"}]',
    "no number of JSON": '42/client,["message",{"content":"x","data":NaN}]',
    "number that is too large": '42/client,["message",{"content":"x","data":[1e999]}]',
    "empty packet": "",
    "no packet type": "hello",
    "open": "0",
    "ping": "2probe",
    "upgrade": "5",
    "noop": "6",
    "no Socket.IO packet": "4hello",
    "unknown Socket.IO packet": "49/client,",
    "error of a connection": "44/client,{}",
    "answer that nobody asked for": "43/client,1[]",
    "object in the place of a packet": '4{"a":1}',
    "no JSON": "42/client,[",
    "no list": '42/client,{"a":1}',
    "empty list": "42/client,[]",
    "name that is no text": "42/client,[1]",
    "name of the library": event("disconnect", "x"),
    "another namespace": '42/other,["x"]',
    "attachment that nothing announced": "bAAAA",
    "no attachment": '450-/client,["x"]',
    "too many attachments": f"45{MAX_ATTACHMENTS + 1}-/client," + '["x"]',
    "very many attachments": '459999999999-/client,["x"]',
    "attachments that have no place": '451-/client,["x"]',
    "place without attachment": '451-/client,["x",{"_placeholder":true,"num":1}]',
    "behind the end": "1\x1e42/client,[]",
    "behind the end of the connection": "41/client,\x1e" + event("ping"),
}


@pytest.mark.parametrize("packet", BAD.values(), ids=BAD)
async def test_what_would_be_dropped_is_refused_whole(kenko: Kenko, packet: bytes | str) -> None:
    """Nothing of its body is taken, and the session goes on."""
    bad = packet if isinstance(packet, bytes) else packet.encode()
    async with polling(kenko) as client:
        good = event("message", {"content": "hi"}).encode()
        answer = await kenko.http.post(client.path, content=good + b"\x1e" + bad)
        assert answer.status_code == 400, answer.text
        assert isinstance(answer.json(), str)
        await said(kenko, 0)
        assert (await client.post(event("ping"))).status_code == 200
        assert await client.events(1) == [["pong"]]


async def test_attachments_are_taken_also_with_the_next_post(kenko: Kenko) -> None:
    """Up to the limit; what comes between is no attachment."""
    places = [{"_placeholder": True, "num": place} for place in range(MAX_ATTACHMENTS)]
    packet = f"45{MAX_ATTACHMENTS}-/client," + json.dumps(["dance", *places])
    async with polling(kenko) as client:
        assert (await client.post(packet, *["bAAAA"] * 3)).status_code == 200
        assert (await client.post(event("ping"))).status_code == 400
        rest = ["bAAAA"] * (MAX_ATTACHMENTS - 3)
        assert (await client.post(*rest, event("ping"))).status_code == 200
        assert await client.events(1) == [["pong"]]


async def test_a_form_is_read_without_loss(kenko: Kenko) -> None:
    """As scripts of other origins once posted packets."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with polling(kenko) as client:
        body = httpx2.QueryParams({"d": event("ping", "é")})
        answer = await kenko.http.post(client.path, content=str(body).encode(), headers=form)
        assert answer.status_code == 200
        assert await client.events(1) == [["pong"]]
        bad = await kenko.http.post(client.path, content=b"d=42/client,[%22%FF%22]", headers=form)
        assert bad.status_code == 400


async def test_an_event_before_the_connection_is_refused(kenko: Kenko) -> None:
    """The library logs it and says 200; after it, or together with it, it is taken."""
    async with polling(kenko, register=False) as client:
        assert (await client.post(event("ping"))).status_code == 400
        assert (await client.post("40/client,", event("ping"))).status_code == 200


async def test_a_session_that_is_over_takes_nothing(kenko: Kenko) -> None:
    """400, before and after its end is known."""
    async with polling(kenko) as client:
        assert (await client.post("1")).status_code == 200
        assert (await client.post(event("ping"))).status_code == 400
    assert (await client.post(event("ping"))).status_code == 400
    nobody = Poller(kenko.http, "nobody")
    assert (await nobody.post(event("ping"))).status_code == 400


@pytest.mark.parametrize("number", [MAX_POLLED, MAX_POLLED + 1, 3 * MAX_POLLED])
async def test_a_poll_gives_no_more_than_clients_take(kenko: Kenko, number: int) -> None:
    """The Python client hangs up on more; the rest comes with the next poll."""
    async with polling(kenko) as client:
        await client.post(*[event("ping")] * number)
        polled: list[int] = []
        while sum(polled) < number:
            polled.append(len(await client.poll()))
        assert max(polled) <= MAX_POLLED
        assert sum(polled) == number
    async with kenko.event_client(transports=["polling"]) as app:
        for _ in range(number):
            await app.emit("ping")
        for _ in range(number):
            await app.next("pong")
        await app.client.emit("auth", {"name": "x"}, namespace="/client")
        assert await app.next("auth") is True
        said_ = await app.next("register")
        await kenko.http.delete(f"/api/kenko/apps/{said_['id']}")
        await app.gone.wait()


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """And never another error."""
    for awaited in (0, 1):
        with suppress(PayloadError):
            assert isinstance(read_payload(body, connected=lambda _: True, awaited=awaited), bytes)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_json_has_not_is_told_by_both_transports(number: str) -> None:
    """It does not become null; a WebSocket has no status, and is answered with an error."""
    packet: Any = Packet(encoded_packet=f'2/client,["message",{{"content":"x","data":{number}}}]')
    with pytest.raises(FrameError, match="cannot be read"):
        _encoded(packet.data[1])


@pytest.mark.parametrize("steps", [[], ["2probe"]], ids=["no probe", "no upgrade"])
async def test_an_upgrade_that_is_never_completed(
    kenko: Kenko, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its WebSocket is closed, and the session goes on by polling."""
    monkeypatch.setattr(events, "PROBE_S", 0.05)
    async with polling(kenko) as client:
        path = client.path.replace("polling", "websocket")
        async with connect(kenko.url.replace("http", "ws") + path, proxy=None) as socket:
            for step in steps:
                await socket.send(step)
                assert await socket.recv() == "3probe"
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        await client.post("4")
        while "6" in await client.poll():  # ends the poll that the probe would have taken over
            pass


async def test_an_upgrade_that_is_completed_has_no_deadline_left(
    kenko: Kenko, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WebSocket that took polling over may be silent."""
    monkeypatch.setattr(events, "PROBE_S", 0.3)
    async with polling(kenko) as client:
        path = client.path.replace("polling", "websocket")
        async with connect(kenko.url.replace("http", "ws") + path, proxy=None) as socket:
            await socket.send("2probe")
            assert await socket.recv() == "3probe"
            await socket.send("5")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while True:
                        await socket.recv()  # a closed one raises
