"""Dialling out: TCP and WebSocket links that an adapter opens itself, again and again.

An adapter asks for one with `hub.dial_websocket` and `hub.dial_tcp`; what it brings is a subclass
of `WebSocketConnection`, or of a connection of `hubbub.listeners`.
"""

from __future__ import annotations

from hubbub.net.backoff import Backoff
from hubbub.net.dialer import Dial, DialEnv, DialPolicy, DialState, DialTimes
from hubbub.net.dials import Dials
from hubbub.net.tcp_dialer import dial_tcp
from hubbub.net.websocket_connection import WebSocketConnection
from hubbub.net.websocket_dialer import HeadersOf, dial_websocket

__all__ = [
    "Backoff",
    "Dial",
    "DialEnv",
    "DialPolicy",
    "DialState",
    "DialTimes",
    "Dials",
    "HeadersOf",
    "WebSocketConnection",
    "dial_tcp",
    "dial_websocket",
]
