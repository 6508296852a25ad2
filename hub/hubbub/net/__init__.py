"""Dialling out: TCP and WebSocket links that an adapter opens itself, again and again.

An adapter asks for one with `hub.dial_websocket` and `hub.dial_tcp`; what it brings is a subclass
of `WebSocketConnection`, or of a connection of `hubbub.listeners`.
"""

from __future__ import annotations

from hubbub.net.backoff import Backoff
from hubbub.net.dialer import Dial, DialPolicy, DialState, DialTimes
from hubbub.net.websocket_connection import WebSocketConnection
from hubbub.net.websocket_dialer import HeadersOf

__all__ = [
    "Backoff",
    "Dial",
    "DialPolicy",
    "DialState",
    "DialTimes",
    "HeadersOf",
    "WebSocketConnection",
]
