"""Listeners: TCP, UDP and HTTP, with TLS and limits, for the hub and for every adapter.

An adapter opens its own with `hub.listen_tcp` and `hub.listen_udp`; what it brings is a subclass
of `LineConnection`, `FrameConnection`, `Connection` or `Datagrams`.
"""

from __future__ import annotations

from hubbub.listeners.connections import Connection
from hubbub.listeners.frames import FrameConnection, LineConnection
from hubbub.listeners.http import HttpListener
from hubbub.listeners.opening import Listeners, Opened
from hubbub.listeners.sockets import PortTakenError
from hubbub.listeners.tcp import TcpListener
from hubbub.listeners.tls import TlsError
from hubbub.listeners.udp import Datagrams, UdpListener

__all__ = [
    "Connection",
    "Datagrams",
    "FrameConnection",
    "HttpListener",
    "LineConnection",
    "Listeners",
    "Opened",
    "PortTakenError",
    "TcpListener",
    "TlsError",
    "UdpListener",
]
