"""Posts to destinations that clients gave: each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from hubbub import Envelope
from hubbub.callbacks import SHARE, Callbacks, Post
from hubbub.core import Core
from hubbub.outgoing import Outgoing
from hubbub.testing import FakeClock, running_hub

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "webhook.test"
TYPE = "test.post.v1"
OK = 204


@dataclass
class Receiver:
    """A server that takes posts, one a connection.

    Attributes:
        open: Whether it answers; else each post hangs until it does.
        status: What it answers.
    """

    port: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = OK
    got: list[str] = field(default_factory=list[str])
    under_way: int = 0
    most: int = 0
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one post."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            async with self.came:
                self.got.append(body.decode())
                self.came.notify_all()
            await self.open.wait()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # who posted has given up
        finally:
            self.under_way -= 1
            writer.close()

    async def wait_for(self, number: int) -> None:
        """Return when that many posts came."""
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: len(self.got) >= number)


@asynccontextmanager
async def receiver(*, hangs: bool = False, port: int = 0) -> AsyncGenerator[Receiver]:
    """Run a server."""
    made = Receiver()
    if not hangs:
        made.open.set()
    server = await asyncio.start_server(made.serve, "127.0.0.1", port)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.open.set()
        server.close()


@asynccontextmanager
async def posting(
    folder: Path, clock: FakeClock | None = None, *, most: int = 100, timeout_s: float = 30
) -> AsyncGenerator[tuple[Core, Callbacks]]:
    """Run a hub with callbacks."""

    async def post_of(envelope: Envelope) -> Post:
        url, _, body = str(envelope.json()).partition(" ")
        return Post(url, body.encode(), {})

    async with running_hub(folder, "[hub]\ndrain_timeout = 0.05\n", clock=clock) as core:
        outgoing = Outgoing(["127.0.0.0/8"], timeout_s=timeout_s)
        callbacks = Callbacks(
            core, outgoing, post_of,
            address=ADDRESS, accepts=TYPE, attempts=8, max_destinations=most,
        )  # fmt: skip
        callbacks.start()
        try:
            yield core, callbacks
        finally:
            callbacks.close()
            await outgoing.close()


async def post(core: Core, callbacks: Callbacks, url: str, *bodies: str) -> None:
    """Ask for posts, all at once."""

    async def one(body: str) -> None:
        envelope = Envelope.new(
            source="test", subject="test.post", type=TYPE, data=f"{url} {body}",
            to=(callbacks.address_of(url),),
        )  # fmt: skip
        receipt = await core.publish(envelope)
        assert receipt.deliveries == 1

    await asyncio.gather(*(one(body) for body in bodies))


def many(number: int) -> list[str]:
    """Return bodies of that many posts."""
    return [f"n{index}" for index in range(number)]


async def test_a_hanging_destination_holds_up_no_other(tmp_path: Path) -> None:
    """Hundreds wait for it; another one gets its post at once. It has its share, not more."""
    async with (
        receiver(hangs=True) as hanging,
        receiver() as other,
        posting(tmp_path) as (core, callbacks),
    ):
        await post(core, callbacks, hanging.url, *many(300))
        await hanging.wait_for(SHARE)
        async with asyncio.timeout(1):
            await post(core, callbacks, other.url, "quick")
            await other.wait_for(1)
        assert hanging.most == SHARE
        hanging.open.set()
        await hanging.wait_for(300)
        assert sorted(set(hanging.got)) == sorted(many(300))


async def test_nothing_is_lost_while_the_breaker_is_open(tmp_path: Path) -> None:
    """After failures in a row one post at a time asks; when it is answered, all go."""
    clock = FakeClock()
    async with receiver() as gone:
        url, port = gone.url, gone.port
    async with posting(tmp_path, clock) as (core, callbacks):
        address = callbacks.address_of(url)
        await post(core, callbacks, url, *many(50))

        async def opened() -> None:
            guard = core.room.guards.find(address)
            while guard is None or not guard.wary:  # nothing tells
                await clock.advance(1)
                guard = core.room.guards.find(address)

        async with asyncio.timeout(20):
            await opened()
        async with receiver(port=port) as back, asyncio.timeout(20):
            while len(set(back.got)) < 50:  # nothing tells
                await clock.advance(10)
        assert sorted(back.got) == sorted(many(50))


async def test_a_destination_that_is_gone_uses_up_the_attempts(tmp_path: Path) -> None:
    """Probes count, too: nothing waits for ever; what was tried often enough is a dead letter."""
    clock = FakeClock()
    async with receiver() as gone:
        url = gone.url
    ended: list[str | None] = []
    async with posting(tmp_path, clock) as (core, callbacks), asyncio.timeout(30):
        core.observe(accepted=lambda _: None, ended=lambda d: ended.append(d.outcome))
        await post(core, callbacks, url, *many(3))
        while len(ended) < 3:  # nothing tells
            await clock.advance(10)
    assert ended == ["dead"] * 3


@pytest.mark.parametrize("status", [404, 429])
async def test_an_answer_that_says_no_is_no_failure_of_its_destination(
    tmp_path: Path, status: int
) -> None:
    """Others behind the same host do not wait for what it does not want."""
    async with receiver() as picky, posting(tmp_path) as (core, callbacks):
        picky.status = status
        await post(core, callbacks, picky.url, *many(30))
        await picky.wait_for(30)
        guard = core.room.guards.find(callbacks.address_of(picky.url))
        assert guard is not None
        assert not guard.wary


async def test_first_attempts_go_before_retries(tmp_path: Path) -> None:
    """Also at one destination."""
    clock = FakeClock()
    async with receiver(hangs=True) as slow, posting(tmp_path, clock) as (core, callbacks):
        slow.status = 503
        await post(core, callbacks, slow.url, *many(SHARE))
        await slow.wait_for(SHARE)
        slow.open.set()
        link = core.room.link_of(callbacks.address_of(slow.url))
        assert link is not None
        async with asyncio.timeout(10):
            while link.busy:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
        slow.open.clear()
        link.slots = 0
        await post(core, callbacks, slow.url, "new1", "new2")
        await clock.advance(60)  # all of the retries are due now
        link.slots = 2
        await slow.wait_for(SHARE + 2)
        assert set(slow.got[SHARE:]) == {"new1", "new2"}


async def test_a_restart_keeps_all(tmp_path: Path) -> None:
    """What waited for a destination is posted by the next hub, by the old address, too."""
    async with receiver(hangs=True) as hanging:
        async with posting(tmp_path) as (core, callbacks):
            await post(core, callbacks, hanging.url, *many(20))
            old = Envelope.new(
                source="test", subject="test.post", type=TYPE, data=f"{hanging.url} old",
                to=(ADDRESS,),
            )  # fmt: skip
            await core.publish(old)
            await hanging.wait_for(SHARE + 1)
        hanging.open.set()
        hanging.got.clear()
        async with posting(tmp_path) as (core, callbacks), asyncio.timeout(20):
            while set(hanging.got) != {*many(20), "old"}:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)


async def test_the_number_of_destinations_is_bounded(tmp_path: Path) -> None:
    """An idle one makes way; where none is, the common endpoint posts."""
    async with AsyncExitStack() as stack:
        hanging = [await stack.enter_async_context(receiver(hangs=True)) for _ in range(3)]
        quick = await stack.enter_async_context(receiver())
        core, callbacks = await stack.enter_async_context(posting(tmp_path, most=2))

        def own() -> set[str]:
            return {endpoint.address for endpoint in core.known(f"{ADDRESS}.*")}

        await post(core, callbacks, quick.url, "a")
        await quick.wait_for(1)
        async with asyncio.timeout(10):
            while not callbacks._idle():  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
        for each in hanging:
            await post(core, callbacks, each.url, "x")
            await each.wait_for(1)
        assert own() == {callbacks.address_of(each.url) for each in hanging[:2]}
        await post(core, callbacks, quick.url, "b")
        await quick.wait_for(2)
        assert len(own()) == 2


async def test_an_idle_destination_is_forgotten(tmp_path: Path) -> None:
    """After a while, and comes back when it is named."""
    clock = FakeClock()
    async with receiver() as quick, posting(tmp_path, clock) as (core, callbacks):
        for number in (1, 2):
            await post(core, callbacks, quick.url, "a")
            await quick.wait_for(number)
            assert len(core.known(f"{ADDRESS}.*")) == 1
            async with asyncio.timeout(10):
                while core.known(f"{ADDRESS}.*"):  # nothing tells
                    await clock.advance(600)
