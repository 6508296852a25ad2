"""Final records posted to a `callback_url`."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hubbub import Envelope
from hubbub.callbacks import pause_s
from hubbub.listeners import HttpListener
from hubbub.values import Delivery
from hubbub_relay import events
from hubbub_relay.callbacks import ADDRESS, CALLBACK
from tests.adapters.relay.serving import KEY, SETTINGS, RunRelay

ALLOWED = SETTINGS + 'callback_allow = ["127.0.0.0/8"]\n'


@dataclass
class Receiver:
    """A server that takes posts; `answers` are its next statuses, then 200."""

    url: str = ""
    posts: list[tuple[dict[str, str], bytes]] = field(
        default_factory=list[tuple[dict[str, str], bytes]]
    )
    answers: list[int] = field(default_factory=list[int])
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: Request) -> Response:
        """Take one post."""
        async with self.came:
            self.posts.append((dict(request.headers), await request.body()))
            self.came.notify_all()
        status = self.answers.pop(0) if self.answers else 200
        return Response(status_code=status, headers={"location": self.url})

    async def wait_for(self, number: int) -> None:
        """Return when that many posts came."""
        async with asyncio.timeout(15), self.came:
            await self.came.wait_for(lambda: len(self.posts) >= number)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    """A server on a port of its own."""
    made = Receiver()
    listener = HttpListener("127.0.0.1", 0)
    listener.bind()
    await listener.serve(
        Starlette(routes=[Route("/hook", made.take, methods=["POST"])]), drain_timeout_s=1
    )
    made.url = f"{listener.url}/hook"
    yield made
    await listener.stop()


async def test_the_final_record_is_posted_and_signed(
    run_relay: RunRelay, receiver: Receiver
) -> None:
    """Once, as it stands in the log, signed with the sender's key."""
    async with run_relay(ALLOWED) as relay:
        task_id = await relay.task(callback_url=receiver.url)
        await relay.task()
        await relay.callback(task_id, child_id="c", result={"a": 1})
        await relay.callback(task_id, child_id="c", result={"a": 2})
        await receiver.wait_for(1)
        logged = await relay.logs(event="callback")
    [(headers, body)] = receiver.posts  # also after the hub has brought all to its end
    assert json.loads(body) == logged[0]
    wanted = hmac.new(KEY.encode(), body, "sha256").hexdigest()
    assert headers["x-relay-signature"] == wanted
    assert headers["content-type"] == "application/json"


async def test_a_post_is_tried_again(run_relay: RunRelay, receiver: Receiver) -> None:
    """After an error and after a redirect, which is not followed."""
    receiver.answers = [500, 302]
    async with run_relay(ALLOWED) as relay:
        task_id = await relay.task(callback_url=receiver.url)
        await relay.callback(task_id)
        await receiver.wait_for(3)
        assert len({body for _, body in receiver.posts}) == 1


async def test_a_post_survives_a_restart(run_relay: RunRelay, receiver: Receiver) -> None:
    """The hub ends between result and post: the next one makes it, once."""
    async with run_relay(ALLOWED) as relay:
        task_id = await relay.task(callback_url=receiver.url)
        other = await relay.task(callback_url=receiver.url)
        # Results that this relay does not notice, as if it were killed right after the commit.
        relay.core.adapters.get("relay").adapter._tasks[0].cancel()  # type: ignore[attr-defined]
        await relay.callback(task_id)
    assert receiver.posts == []
    async with run_relay(ALLOWED) as relay:
        await receiver.wait_for(1)
        await relay.callback(other)
        await receiver.wait_for(2)
    async with run_relay(ALLOWED) as relay, asyncio.timeout(10):
        while await relay.core.read(events.open_callbacks):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0)
    ids = [json.loads(body)["task_id"] for _, body in receiver.posts]
    assert ids == [task_id, other]


async def test_a_result_by_another_protocol_is_posted_too(
    run_relay: RunRelay, receiver: Receiver
) -> None:
    """Whoever does the task: here nobody, until it is cancelled."""
    async with run_relay(ALLOWED) as relay:
        task_id = await relay.task(callback_url=receiver.url)
        await relay.core.work.cancel(task_id)
        await receiver.wait_for(1)
        record = json.loads(receiver.posts[0][1])
        assert (record["task_id"], record["status"]) == (task_id, "failed")


async def test_a_receiver_that_hangs_holds_up_no_other(
    run_relay: RunRelay, receiver: Receiver
) -> None:
    """Hundreds of records wait for it; that of another destination is posted within a second."""
    came = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    toml = "[hub]\ndrain_timeout = 0.1\n" + ALLOWED
    async with run_relay(toml) as relay, asyncio.timeout(60):
        url = f"http://127.0.0.1:{port}/"
        stuck = await asyncio.gather(*(relay.task(callback_url=url) for _ in range(200)))
        quick = await relay.task(callback_url=receiver.url)
        await asyncio.gather(*(relay.callback(task_id) for task_id in stuck))
        await came.wait()
        async with asyncio.timeout(1):
            await relay.callback(quick)
            await receiver.wait_for(1)
    server.close()


@pytest.mark.parametrize("to", ["webhook.relay", "webhook.relay.x"])
async def test_only_the_relay_has_records_signed(
    run_relay: RunRelay, receiver: Receiver, to: str
) -> None:
    """Whoever may write to the address of posts gets nothing signed with a key."""
    async with run_relay(ALLOWED) as relay, asyncio.timeout(10):
        data = {"url": receiver.url, "key": "boss", "record": "{}"}
        ended = asyncio.Queue[Delivery]()
        relay.core.observe(accepted=lambda _: None, ended=ended.put_nowait)
        for source in ("api.boss", ADDRESS):
            await relay.core.publish(
                Envelope.new(source=source, subject="a.b", type=CALLBACK, data=data, to=(to,))
            )
            delivery = await ended.get()
            assert (delivery.outcome, delivery.reason) == (
                ("dead", "rejected") if source == "api.boss" else ("delivered", None)
            )
    assert len(receiver.posts) == 1


REFUSED: Sequence[str] = (
    "http://127.0.0.1:1/x",
    "http://localhost/x",
    "http://10.1.2.3/",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://0.0.0.0/",
    "http://224.0.0.1/",
    "http://2130706433/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "http://user:pw@example.com/",
    "http://",
    "nonsense",
)


async def test_urls_into_private_networks_are_refused(run_relay: RunRelay) -> None:
    """At send already, and nothing is stored."""
    async with run_relay(SETTINGS) as relay:
        for url in REFUSED:
            body = {"from": "a", "to": "b", "type": "task", "callback_url": url}
            answer = await relay.client.post("/send", json=body)
            assert answer.status_code == 400, url
            assert answer.json()["msg"].startswith("callback_url is refused"), url
        assert await relay.logs() == []


async def test_a_token_has_nothing_to_sign_with(run_relay: RunRelay) -> None:
    """A key is needed for a `callback_url`."""
    async with run_relay(ALLOWED) as relay:
        token = relay.core.config.hub.data_dir.joinpath("admin.token").read_text().strip()
        body = {"from": "a", "to": "b", "type": "task", "callback_url": "http://127.0.0.1/"}
        headers = {"Authorization": f"Bearer {token}"}
        answer = await relay.anybody.post("/send", json=body, headers=headers)
        assert (answer.status_code, answer.json()["msg"][:12]) == (400, "callback_url")


def test_pauses() -> None:
    """1 and 2 seconds, then exponential, up to 60."""
    assert [pause_s(attempt) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
