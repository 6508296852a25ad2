"""Wrong tokens over HTTP and WebSocket: 401, then 429; valid ones are always taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub.testing import FakeClock, serving_hub
from tests.hub.web.conftest import ADMIN, FAST, Served, serving

LIMIT = 3
TOML = f'{FAST}auth_failure_limit = {LIMIT}\nauth_failure_window = "30s"\n'
PATH = "/api/v1/routes"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def tried(served: Served, token: str = "wrong", path: str = PATH) -> httpx2.Response:
    return await served.client.get(path, headers=bearer(token))


async def status_of(served: Served, token: str, peer: str = "127.0.0.1") -> tuple[int, str | None]:
    """Open a stream; return the status of the handshake, and its `Retry-After`."""
    url = served.url.replace("http", "ws") + "/api/v1/stream"
    here = socket.socket()
    here.bind((peer, 0))
    here.setblocking(False)
    port = int(served.url.rpartition(":")[2])
    await asyncio.get_running_loop().sock_connect(here, ("127.0.0.1", port))
    try:
        async with connect(url, additional_headers=bearer(token), proxy=None, sock=here):
            return 101, None
    except InvalidStatus as error:
        response = error.response
        return response.status_code, response.headers.get("retry-after")


@asynccontextmanager
async def client_at(served: Served, peer: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with another address of this machine."""
    transport = httpx2.AsyncHTTPTransport(local_address=peer)
    async with httpx2.AsyncClient(base_url=served.url, transport=transport) as client:
        yield client


async def audited(served: Served) -> list[dict[str, Any]]:
    """Return the notes of sources that were slowed down, once there is one."""
    async with asyncio.timeout(10):
        while True:
            items: list[dict[str, Any]] = (await served.get("/api/v1/audit"))["items"]
            found = [item for item in items if item["act"] == "auth.slowed_down"]
            if found:
                return found
            await asyncio.sleep(0.01)


async def test_wrong_tokens_are_slowed_down_and_a_valid_one_is_taken(tmp_path: Path) -> None:
    """Exactly `hub.auth_failure_limit` are 401; then 429 with a time; audited once, and counted."""
    async with serving(tmp_path / "hub", TOML) as served:
        answers = [await tried(served, f"wrong{number}") for number in range(LIMIT + 2)]
        assert [one.status_code for one in answers] == [401] * LIMIT + [429] * 2
        refused = answers[-1]
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "too_many_failures"
        assert "wrong" not in refused.text
        for _ in range(5):
            assert (await served.client.get(PATH)).status_code == 200
            assert (await tried(served)).status_code == 429
        (note,) = await audited(served)
        assert (note["principal"], note["target"]) == ("127.0.0.1", "token")
        await served.core.metrics.refresh()
        text = served.core.metrics.render().decode()
        assert 'hubbub_auth_failures_total{kind="token"} 10.0' in text
        assert 'hubbub_auth_refused_total{kind="token"} 7.0' in text


async def test_streams_are_counted_with_all_else(tmp_path: Path) -> None:
    """A WebSocket is denied with the same status; live events too; elsewhere nobody notices."""
    async with serving(tmp_path / "hub", TOML) as served:
        assert await status_of(served, "wrong") == (401, None)
        assert (await tried(served, path="/api/v1/stream?subject=a.b")).status_code == 401
        assert (await tried(served)).status_code == 401
        status, after = await status_of(served, "wrong")
        assert status == HTTPStatus.TOO_MANY_REQUESTS
        assert after is not None
        assert (await tried(served, path="/api/v1/stream?subject=a.b")).status_code == 429
        assert (await status_of(served, ADMIN))[0] == 101
        assert (await status_of(served, "wrong", peer="127.0.0.2"))[0] == 401
        async with client_at(served, "127.0.0.3") as elsewhere:
            assert (await elsewhere.get(PATH, headers=bearer("wrong"))).status_code == 401


async def test_no_token_is_no_attempt(tmp_path: Path) -> None:
    """Browsers and probes send none; nor is another scheme one."""
    async with serving(tmp_path / "hub", TOML) as served, client_at(served, "127.0.0.1") as nobody:
        for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer"}):
            for _ in range(LIMIT + 1):
                assert (await nobody.get(PATH, headers=headers)).status_code == 401
        assert (await tried(served)).status_code == 401


async def test_expired_and_revoked_tokens_count(tmp_path: Path) -> None:
    """They are as good as any wrong one; the limit gives back one failure in its share."""
    clock = FakeClock()
    async with serving_hub(tmp_path / "hub", TOML, clock=clock) as hub:
        tokens = hub.core.tokens
        async with httpx2.AsyncClient(base_url=hub.main.url) as client:
            over, text = await tokens.create("t", ["read"], expires_us=None)
            await tokens.revoke(over.id)
            _, expired = await tokens.create("t", ["read"], expires_us=clock.now_us())

            async def status(token: str) -> int:
                return (await client.get(PATH, headers=bearer(token))).status_code

            assert [await status(text), await status(expired), await status("x")] == [401] * 3
            assert await status(text) == 429
            await clock.advance(9.9)
            assert await status(expired) == 429
            await clock.advance(0.2)
            assert [await status(text), await status(text)] == [401, 429]


async def test_other_limits_hold_after_a_reload(tmp_path: Path) -> None:
    """At once, without a restart; 0 is no limit."""
    async with serving(tmp_path / "hub", TOML) as served:
        for _ in range(LIMIT):
            await tried(served)
        assert (await tried(served)).status_code == 429
        path = tmp_path / "hub" / "hub.toml"
        path.write_text(path.read_text().replace(f"limit = {LIMIT}", "limit = 0"))
        assert (await served.client.post("/api/v1/reload")).status_code == 200
        assert {(await tried(served)).status_code for _ in range(20)} == {401}


@pytest.mark.parametrize("limit", [-1, 1_000_001])
def test_the_limit_has_a_range(limit: int) -> None:
    """From 0, which is no limit, to a million."""
    from hubbub.config.models import HubSettings

    with pytest.raises(ValueError, match="auth_failure_limit"):
        HubSettings(auth_failure_limit=limit)
