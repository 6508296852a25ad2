"""The relay stands what every adapter has to stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import httpx2

from hubbub.config import Address
from hubbub.testing import AdapterSuite, Served, TcpPeer

KEY = "lynker_relay_secret_2025"
SEND = "/api/relay/send"


@dataclass(slots=True)
class Master:
    """A client of the relay."""

    http: httpx2.AsyncClient
    address: Address


class TestRelay(AdapterSuite[Master]):
    """Over HTTP, on a listener of its own."""

    name = "relay"
    subject = "relay.*.message"
    garbage: ClassVar = {
        "nothing": b"",
        "not json": b"{",
        "no object": b"[1]",
        "no type": b"{}",
        "not text": b'{"type": "message", "from": "master", "to": "\xff"}',
        "deep": b"[" * 100_000,
    }

    async def connect(self, served: Served) -> Master:
        url = f"http://{served.address}"
        headers = {"X-Relay-API-Key": KEY}
        http = httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30)
        return Master(http, served.address)

    async def say(self, peer: Master, text: str, traceparent: str) -> None:
        message = {"from": "master", "to": "child", "type": "message", "text": text}
        answer = await peer.http.post(SEND, json=message, headers={"traceparent": traceparent})
        assert answer.status_code == 200, answer.text

    async def throw(self, peer: Master, garbage: bytes) -> None:
        answer = await peer.http.post(SEND, content=garbage)
        assert answer.status_code in (400, 422), answer.text

    async def vanish(self, peer: Master) -> None:
        await peer.http.aclose()
        raw = await TcpPeer.connect(peer.address)
        await raw.send(b"POST " + SEND.encode() + b" HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        raw.vanish()

    async def leave(self, peer: Master) -> None:
        await peer.http.aclose()
