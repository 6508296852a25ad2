"""UDP: datagrams, and a rate for each source."""

from __future__ import annotations

import pytest

from hubbub.errors import InvalidError
from hubbub.listeners import Datagrams, UdpListener
from hubbub.listeners.udp import Peer
from hubbub.testing import UdpPeer
from tests.hub.listeners.conftest import Bench


class Echo(Datagrams):
    """Says every datagram again."""

    def received(self, data: bytes, peer: Peer) -> None:
        if data == b"bug":
            raise RuntimeError("a bug")
        if data == b"bad":
            raise InvalidError("not this one")
        self.send(b">" + data, peer)


@pytest.fixture
async def listener(bench: Bench) -> UdpListener:
    return await bench.udp(Echo, frame=100, rate_per_source=10)


async def test_datagrams_come_back(listener: UdpListener) -> None:
    """Each for itself, an empty one too."""
    peer = UdpPeer(listener.address)
    for data in (b"one", b"", b"x" * 100):
        peer.send(data)
        assert await peer.answer() == b">" + data
    peer.close()


async def test_bad_datagrams_change_nothing(bench: Bench, listener: UdpListener) -> None:
    """Over the limit, refused or broken: counted, and the next one is answered."""
    peer = UdpPeer(listener.address)
    for data in (b"x" * 101, b"bad", b"bug"):
        peer.send(data)
    peer.send(b"good")
    assert await peer.answer() == b">good"
    assert (bench.frames("too_large"), bench.frames("invalid")) == (1, 1)
    assert bench.metrics.plugin_errors["test", "datagram"]._value.get() == 1
    peer.close()


async def test_the_rate_of_a_source(bench: Bench, listener: UdpListener) -> None:
    """Ten at once, then one each tenth of a second; the rest is dropped."""
    peer = UdpPeer(listener.address)
    for number in range(15):
        peer.send(b"%d" % number)
    assert [await peer.answer() for _ in range(10)] == [b">%d" % number for number in range(10)]
    await bench.until(lambda: bench.frames("rate") == 5)
    await bench.clock.advance(0.1)
    peer.send(b"again")
    assert await peer.answer() == b">again"
    peer.close()


async def test_two_hubs_do_not_share_a_port(bench: Bench, listener: UdpListener) -> None:
    """The second is told that it is taken."""
    other = UdpListener(
        listener.address,
        Echo,
        name="other",
        limits=bench.limits(),
        clock=bench.clock,
        metrics=bench.metrics,
    )
    with pytest.raises(Exception, match="cannot listen on"):
        other.bind()
    await listener.stop(0.1)
    other.bind()
    await other.stop(0.1)
