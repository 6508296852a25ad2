"""Clients that hang up in the middle of a body, or send too much of it, on paths of plugins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from hubbub import hookimpl
from hubbub.config import Address
from hubbub.testing import TcpPeer
from hubbub.web import Call, Operation, Reply, operation_routes, read_body
from hubbub.web.bodies import DISCARDED
from tests.hub.web.conftest import ADMIN, FAST, Served, serving

LIMIT = 2048


Read = Callable[[], Awaitable[bytes]]


class Reads:
    """A plugin whose paths read bodies, in each of the ways there are."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    @hookimpl
    def http_routes(self) -> list[Any]:
        async def endpoint(request: Request) -> Response:
            return PlainTextResponse(str(len(await self._during(request.body))))

        async def limited(request: Request) -> Response:
            async def body() -> bytes:
                return await read_body(request.scope, request.receive, LIMIT, setting="a setting")

            return PlainTextResponse(str(len(await self._during(body))))

        async def half_answered(request: Request) -> Response:
            return _HalfAnswered(request, self._during)

        operations = [Operation("POST", "/operation", self._operation, "Read a body")]
        return [
            Route("/starlette", endpoint, methods=["POST"]),
            Route("/limited", limited, methods=["POST"]),
            Route("/half", half_answered, methods=["POST"]),
            Route("/plain", _Plain(self._during)),
            Route("/plain/{part}", _Plain(self._during)),
            *operation_routes(operations),
        ]

    async def _operation(self, call: Call) -> Reply:
        return Reply(200, len(await self._during(call.body)))

    async def _during(self, read: Read) -> bytes:
        self.begun.set()
        try:
            return await read()
        finally:
            self.ended.set()


class _Plain:
    """Reads the body as a plain ASGI application."""

    def __init__(self, during: Callable[[Read], Awaitable[bytes]]) -> None:
        self._during = during

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._during(lambda: read_body(scope, receive, LIMIT))
        await PlainTextResponse(str(len(body)))(scope, receive, send)


class _HalfAnswered(Response):
    """Begins to answer, and reads the body then."""

    def __init__(self, request: Request, during: Callable[[Read], Awaitable[bytes]]) -> None:
        super().__init__()
        self._request = request
        self._during = during

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self._during(self._request.body)


async def connected(served: Served) -> TcpPeer:
    """Connect without a client library."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    return await TcpPeer.connect(Address(host, int(port)))


def head(path: str, *more: str) -> bytes:
    """Return the head of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {ADMIN}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    "path", ["/starlette", "/limited", "/half", "/plain", "/plain/part", "/operation"]
)
async def test_a_client_that_hangs_up_is_nobodys_mistake(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing above debug is logged, whatever the path reads its body with."""
    plugin = Reads()
    async with serving(tmp_path / "hub", FAST, plugins={"reads": plugin}) as served:
        peer = await connected(served)
        await peer.send(head(path, "Content-Length: 100") + b"half of it")
        with capture_logs() as logged:
            async with asyncio.timeout(10):
                await plugin.begun.wait()
                peer.vanish()
                await plugin.ended.wait()
            await served.get("/healthz")  # the one that is gone has been served to its end by now
        assert [(one["event"], one["log_level"]) for one in logged] == [
            ("web.client_gone", "debug")
        ]
        assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("path", ["/limited", "/plain", "/plain/part", "/operation"])
@pytest.mark.parametrize(("pieces", "closes"), [(DISCARDED, False), (DISCARDED + 1, True)])
async def test_who_still_sends_hears_of_the_limit(
    tmp_path: Path, path: str, pieces: int, closes: bool
) -> None:
    """The rest is thrown away, so that the refusal arrives; of far too much it is not."""
    toml = FAST + 'max_body = "2KiB"\n'
    async with serving(tmp_path / "hub", toml, plugins={"reads": Reads()}) as served:
        peer = await connected(served)
        try:
            await peer.send(head(path, "Transfer-Encoding: chunked"))
            for _ in range(pieces):
                await peer.send(b"800\r\n" + b"x" * LIMIT + b"\r\n")
            if not closes:
                await peer.send(b"0\r\n\r\n")
            assert await peer.line() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
            headers = [await peer.line()]
            while headers[-1] != b"\r\n":
                headers.append(await peer.line())
            assert (b"connection: close\r\n" in headers) == closes
        finally:
            await peer.close()
