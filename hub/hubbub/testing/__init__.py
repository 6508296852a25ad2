"""Test kit for plugin authors: hubs, a clock that is moved by hand, recorders, `AdapterSuite`.

Nothing here needs pytest; coroutine tests want a runner such as pytest-asyncio.
"""

from __future__ import annotations

from hubbub.testing.clock import FakeClock, settle
from hubbub.testing.hubs import running_hub, serving_hub
from hubbub.testing.peers import TcpPeer, UdpPeer
from hubbub.testing.recorders import RecordingEndpoint, counted
from hubbub.testing.suite import AdapterSuite, Served

__all__ = [
    "AdapterSuite",
    "FakeClock",
    "RecordingEndpoint",
    "Served",
    "TcpPeer",
    "UdpPeer",
    "counted",
    "running_hub",
    "serving_hub",
    "settle",
]
