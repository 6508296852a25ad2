"""TCP that the hub dials, and how an address is reached."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hubbub.config import Address, ClientTlsSettings
from hubbub.errors import Retry
from hubbub.listeners.tls import server_context
from hubbub.net import Backoff, DialPolicy, DialTimes
from hubbub.net.tcp_dialer import dial_tcp
from tests.hub.listeners.conftest import OPENSSL, Files
from tests.hub.net.conftest import Bench, SeenLines, hang


async def parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say every line again, and end at `bye`."""
    while (line := await reader.readline()) and line != b"bye\n":
        writer.write(line)


async def test_lines_both_ways(bench: Bench) -> None:
    """With the very connections that listeners have; lost, it is dialled again."""
    dial = bench.tcp(await bench.peer(parrot))
    await bench.until_state(dial, "open")
    await bench.links[0].send(b"hello\n")
    await bench.until(lambda: b"hello\n" in bench.seen)
    bench.links[0].write(b"bye\n")
    await bench.until_state(dial, "waiting")
    assert bench.seen == [("opened", "127.0.0.1"), b"hello\n", "closed"]
    assert dial.url.startswith("tcp://127.0.0.1:")
    await bench.clock.advance(1)
    await bench.until_state(dial, "open")
    with pytest.raises(Retry):
        await bench.links[0].send(b"more\n")
    dial.close()
    await bench.until(lambda: dial.is_gone)
    assert bench.seen[3:] == [("opened", "127.0.0.1"), "closed"]


async def test_a_source_address(bench: Bench) -> None:
    """The peer sees it; one that this machine has not is a failure to connect."""
    came: list[Any] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername")[0])
        await hang(reader, writer)

    address = await bench.peer(look)
    dial = bench.tcp(address, source="127.0.0.7")
    await bench.until(lambda: came == ["127.0.0.7"])
    await bench.until_state(dial, "open")
    foreign = bench.tcp(address, source="192.0.2.1")
    await bench.until_state(foreign, "waiting")
    assert bench.failed("connect") == 1
    assert len(came) == 1


@pytest.mark.skipif(OPENSSL is None, reason="makes certificates with openssl")
async def test_lines_over_tls(bench: Bench, files: Files) -> None:
    """With one's own authority; a file that cannot be read is named, and read anew each time."""
    address = await bench.peer(parrot, ssl=server_context(files.settings))
    late = files.cert.with_name("late.pem")
    dial = bench.tcp(address, tls=ClientTlsSettings(ca=late))
    await bench.until_state(dial, "waiting")
    assert str(late) in dial.reason
    assert bench.failed("tls") == 1
    late.write_bytes(files.cert.read_bytes())
    await bench.clock.advance(1)
    await bench.until_state(dial, "open")
    bench.links[-1].write(b"hello\n")
    await bench.until(lambda: b"hello\n" in bench.seen)
    late.unlink()


async def test_limits_of_a_link(bench: Bench) -> None:
    """A frame over the limit, and silence over `idle`, end it as on a listener."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if bench.came == 1:
            writer.write(b"x" * 11 + b"\n")
        await hang(reader, writer)

    limits = {"frame": 10, "idle": 30}
    dial = bench.tcp(await bench.peer(talk), limits=limits)
    await bench.until(lambda: dial.failures == 1)
    assert "too_large" in dial.reason
    await bench.clock.advance(1)
    await bench.until(lambda: bench.came == 2)
    await bench.until_state(dial, "open")
    await bench.clock.advance(30)
    await bench.until(lambda: bench.failed("lost") == 2)
    assert "idle" in dial.reason


async def test_a_name_that_nobody_knows(bench: Bench) -> None:
    """Tried again, as everything."""

    async def nowhere(host: str, port: int) -> Sequence[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    env = replace(bench.env(), resolve=nowhere)
    dial = bench._begun(dial_tcp(Address("nowhere.example", 1), bench._made(SeenLines), env=env))
    await bench.until_state(dial, "waiting")
    assert bench.failed("dns") == 1
    assert "nowhere.example" in dial.reason


async def test_the_next_address_is_tried(bench: Bench) -> None:
    """One that refuses takes no time, one that is silent has its share."""
    address = await bench.peer(parrot)
    with socket.socket() as full:
        full.bind(("127.0.0.9", address.port))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())

        async def several(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.8", "127.0.0.9", "127.0.0.1"]

        env = replace(bench.env(), resolve=several)
        policy = DialPolicy(times=DialTimes(connect_s=0.3))
        target = Address("several.example", address.port)
        dial = bench._begun(dial_tcp(target, bench._made(SeenLines), env=env, policy=policy))
        await bench.until_state(dial, "open")
        assert bench.links[0].peer == "127.0.0.1"
        for each in waiting:
            each.close()


async def test_the_cap_holds(bench: Bench) -> None:
    """A peer that stays away is dialled for ever, at the cap."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        policy = DialPolicy(backoff=Backoff(first_s=1, cap_s=8))
        dial = bench.tcp(Address(*taken.getsockname()), policy=policy)
        waits: list[float] = []
        for number in range(1, 8):
            await bench.until_failed(dial, number)
            waits.append(dial.next_s)
            await bench.clock.advance(dial.next_s)
    assert waits == [1, 2, 4, 8, 8, 8, 8]


async def test_code_that_cannot_begin(bench: Bench) -> None:
    """A protocol that cannot be made is a fault of the adapter, and tried again."""

    class Broken(SeenLines):
        def __init__(self, seen: list[Any]) -> None:
            raise ZeroDivisionError("token=secret")

    dial = bench.tcp(await bench.peer(hang), Broken)
    await bench.until_state(dial, "waiting")
    assert bench.failed("adapter") == 1
    assert "secret" not in dial.reason
    value = bench.metrics.registry.get_sample_value
    assert value("hubbub_plugin_errors_total", {"plugin": "test", "hook": "dial"}) == 1
