"""Outgoing calls never reach private networks, and never take longer than they may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from hubbub.errors import ForbiddenError, InvalidError, UnavailableError
from hubbub.outgoing import Outgoing, host_of

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncGenerator[int]:
    """Serve connections on loopback; gives the port, and leaves nothing open."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def receiver(answer: bytes = OK) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Serve posts on loopback: gives the port and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            came.append(data)
            writer.write(answer)

    async with serving(serve) as port:
        yield port, came


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "127.1",
     "2130706433", "0x7f000001", "017700000001", "0", "[64:ff9b:1::7f00:1]", "[fec0::1]",
     "192.88.99.1", "[::ffff:0:7f00:1]", "[2001:db8::1]"],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    """However they are written."""
    outgoing = Outgoing()
    with pytest.raises((ForbiddenError, InvalidError)):
        await outgoing.check(f"http://{host}/hook")
    await outgoing.close()


async def test_all_addresses_of_a_name_must_be_public() -> None:
    """One private address among public ones refuses the name."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["1.1.1.1", "127.0.0.1"]

    outgoing = Outgoing(resolve=resolve)
    with pytest.raises(ForbiddenError):
        await outgoing.check("https://example.com/hook")
    await outgoing.close()


async def test_a_name_without_address_may_be_tried_again() -> None:
    """It is not refused for good."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    async def nothing(host: str, port: int) -> Sequence[str]:
        return []

    for how in (resolve, nothing):
        outgoing = Outgoing(resolve=how)
        with pytest.raises(UnavailableError):
            await outgoing.check("https://example.com/hook")
        await outgoing.close()


async def test_what_was_reached_is_looked_at_before_anything_is_sent() -> None:
    """An operating system may lead an unspecified address to this machine."""
    async with receiver() as (port, came):
        outgoing = Outgoing(["0.0.0.0/32"])  # allowed, but where it leads to is not
        with pytest.raises(ForbiddenError):
            await outgoing.post(f"http://0.0.0.0:{port}/hook", b"{}", {})
        await outgoing.close()
        assert came == []


async def test_an_allowed_network_is_reached() -> None:
    """And the answer's status comes back."""
    async with receiver() as (port, came):
        outgoing = Outgoing(["127.0.0.0/8"])
        assert await outgoing.post(f"http://127.0.0.1:{port}/hook", b"{}", {}) == 204
        await outgoing.close()
        assert came[0].startswith(b"POST /hook ")


async def test_a_call_ends_in_time_whatever_dribbles() -> None:
    """A receiver that sends a byte of its answer now and then holds nobody longer than another."""

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not reader.at_eof():
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)

    async with serving(dribble) as port:
        outgoing = Outgoing(["127.0.0.0/8"], timeout_s=0.3)
        with pytest.raises(UnavailableError, match=r"0\.3 s"):
            await outgoing.post(f"http://127.0.0.1:{port}/", b"{}", {})
        await outgoing.close()


async def test_a_name_that_is_never_found_ends_in_time() -> None:
    """The time of a call begins with looking its host up."""

    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    outgoing = Outgoing(resolve=never, timeout_s=0.1)
    with pytest.raises(UnavailableError):
        await outgoing.post("http://example.com/", b"{}", {})
    await outgoing.close()


async def test_a_post_that_may_have_arrived_is_not_made_at_another_address() -> None:
    """Only where no connection came to be is the next address tried."""
    async with receiver(b"nonsense\r\n\r\n") as (port, came):

        async def twice(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1", "127.0.0.1"]

        outgoing = Outgoing(["127.0.0.0/8"], resolve=twice)
        with pytest.raises(UnavailableError):
            await outgoing.post(f"http://example.com:{port}/", b"{}", {})
        await outgoing.close()
        assert len(b"".join(came).split(b"POST ")) == 2


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/x", "example.com:80"),
        ("https://example.com./y", "example.com:443"),
        ("http://example.com:8080", "example.com:8080"),
        ("http://[2606:4700:0:0::1111]:81/", "2606:4700::1111:81"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    """One destination has one name."""
    assert host_of(url) == host
