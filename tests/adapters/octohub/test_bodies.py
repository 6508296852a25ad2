"""Bodies that end too early, or not at all: on our paths, and on those of the original."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hubbub.config import Address
from hubbub.testing import TcpPeer
from hubbub.web.bodies import DISCARDED
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub

LIMIT = 65_536
TOML = f"{SETTINGS}max_message_bytes = {LIMIT}\n"
PATHS = ["/api/octohub/tasks", "/login/login"]


async def begin(hub: Octohub, path: str, *more: str) -> TcpPeer:
    """Send the head of a request with the token of an administrator."""
    host, _, port = hub.hub.main.url.removeprefix("http://").partition(":")
    peer = await TcpPeer.connect(Address(host, int(port)))
    token = f"Authorization: {hub.admin['Authorization']}"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", token, *more]
    await peer.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    return peer


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_hangs_up_is_nobodys_mistake(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request is answered with nothing, and nothing above debug is logged."""
    async with octohub(tmp_path, TOML) as hub:
        peer = await begin(hub, path, "Content-Length: 100", "Expect: 100-continue")
        assert await peer.line() == b"HTTP/1.1 100 Continue\r\n"  # so it waits for the body now
        await peer.send(b'{"task_type":')
        with capture_logs() as logged:
            peer.vanish()
            async with asyncio.timeout(10):
                while not logged:  # noqa: ASYNC110  # nothing else tells that it was noticed
                    await asyncio.sleep(0.005)
            assert (await hub.http.get("/health")).status_code == 200
        assert [(one["event"], one["log_level"]) for one in logged] == [
            ("web.client_gone", "debug")
        ]
        assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("pieces", "closes"), [(DISCARDED, False), (DISCARDED + 1, True)])
async def test_who_still_sends_hears_of_the_limit(
    tmp_path: Path, path: str, pieces: int, closes: bool
) -> None:
    """The rest is thrown away, so that the refusal arrives; of far too much it is not."""
    async with octohub(tmp_path, TOML) as hub:
        peer = await begin(hub, path, "Transfer-Encoding: chunked")
        try:
            for _ in range(pieces):
                await peer.send(b"10000\r\n" + b"x" * LIMIT + b"\r\n")
            if not closes:
                await peer.send(b"0\r\n\r\n")
            assert await peer.line() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
            headers = [await peer.line()]
            while headers[-1] != b"\r\n":
                headers.append(await peer.line())
            assert (b"connection: close\r\n" in headers) == closes
            length = next(int(line[16:]) for line in headers if line.startswith(b"content-length"))
            async with asyncio.timeout(10):
                body = json.loads(await peer.reader.readexactly(length))
            code = body["code"] if path.startswith("/api/octohub") else body["errcode"]
            assert code in ("too_large", 1000)
        finally:
            await peer.close()


async def test_while_the_adapter_is_down_it_is_503(tmp_path: Path) -> None:
    """With a token, a login and neither; on paths of the original in their form."""
    async with octohub(tmp_path) as hub:
        await hub.core.adapters.get("octohub").adapter.stop()
        for headers in (hub.admin, {"authorization": "Bearer a.b.c"}, {}):
            answer = await hub.http.get("/api/octohub/tasks", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
        answer = await hub.http.post("/login/login", json={})
        assert (answer.status_code, answer.json()["errcode"]) == (503, 1000)


async def test_other_methods_are_a_problem(tmp_path: Path) -> None:
    """With all methods that the path has."""
    async with octohub(tmp_path) as hub:
        answer = await hub.http.put("/api/octohub/tasks", headers=hub.admin)
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, POST"
