"""Who may come in with the keys that the original ships with, and which pages may ask."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest
import websocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub.open_access import open_access
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub

EVIL: Final = "https://evil.example"
FRONT: Final = "http://localhost:3000"
UNSIGNED: Final = {"errcode": 1002, "errmsg": "签名验证失败"}

FORWARDED: Final = {"X-Forwarded-For": "127.0.0.1"}


async def refused(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Return status and body of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as error:
        async with connect(url, proxy=None, additional_headers=headers):
            pass
    response = error.value.response
    return response.status_code, json.loads(bytes(response.body or b"{}"))


@pytest.mark.parametrize("kind", ["node", "user"])
async def test_no_page_comes_in(tmp_path: Path, kind: str) -> None:
    """Although it can sign an address with the key that everybody has."""
    async with octohub(tmp_path) as hub:
        url = hub.signed_url("7", kind)
        for headers in ({"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            status, said = await refused(url, headers)
            assert (status, said["code"]) == (403, "foreign_origin")
        status, said = await refused(hub.signed_url("8", kind), FORWARDED)
        assert (status, said) == (401, {"error": "签名验证失败"})
        async with hub.peer(hub.signed_url("9", kind)):
            pass


async def test_no_page_gets_an_address(tmp_path: Path) -> None:
    """Neither with its own origin, nor by a name that resolves here, nor through a proxy."""
    async with octohub(tmp_path) as hub:
        assert (await hub.asked(Origin=EVIL)).json()["code"] == "foreign_origin"
        assert (await hub.asked(Host="evil.example")).status_code == 421
        answer = await hub.asked(**FORWARDED)
        assert (answer.status_code, answer.json()) == (401, UNSIGNED)
        assert (await hub.asked()).status_code == 200


async def test_shipped_keys_may_be_allowed(tmp_path: Path) -> None:
    """Then they hold for what a proxy forwards, too."""
    async with octohub(tmp_path, SETTINGS + "allow_default_keys = true\n") as hub:
        assert (await hub.asked(**FORWARDED)).status_code == 200
        url = hub.signed_url("7", "node")
        async with connect(url, proxy=None, additional_headers=FORWARDED):
            pass


@pytest.mark.parametrize(
    ("table", "asked", "entered"),
    [
        ('signature_key = "a key of our own, long enough"\n', 401, 401),
        ('ws_signature_key = "another key of our own, long"\n', 401, 401),
        ('ws_signature_key = ""\n', 401, 401),
        ("split_keys = true\n", 401, 401),
    ],
)
async def test_each_key_for_itself(tmp_path: Path, table: str, asked: int, entered: int) -> None:
    """The other one may still be the shipped one, an empty one, or derived from it."""
    async with octohub(tmp_path, SETTINGS + table) as hub:
        assert (await hub.asked(**FORWARDED)).status_code == asked
        assert (await refused(hub.signed_url("7", "user"), FORWARDED))[0] == entered


@pytest.mark.parametrize(
    ("table", "local", "forwarded"),
    [("", 200, 401), ("public_status = true\n", 200, 200), ("public_status = false\n", 401, 401)],
)
async def test_the_status(tmp_path: Path, table: str, local: int, forwarded: int) -> None:
    """Local requests see it unless it is written otherwise; a link may lead there."""
    async with octohub(tmp_path, SETTINGS + table) as hub:
        assert (await hub.http.get("/status")).status_code == local
        assert (await hub.http.get("/status", headers=FORWARDED)).status_code == forwarded
        admin = {**hub.admin, **FORWARDED}
        assert (await hub.http.get("/status", headers=admin)).status_code == 200
        assert (await hub.http.get("/status", headers={"Origin": EVIL})).status_code == 403
        assert (await hub.http.get("/status", headers={"Host": "evil.example"})).status_code == 421
        page = {"Origin": FRONT}
        assert (await hub.http.get("/status", headers=page)).status_code == forwarded
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert (await hub.http.get("/health", headers=link)).status_code == 200
        assert (await hub.http.get("/user/info", headers=link)).status_code == 403


async def preflight(hub: Octohub, path: str, origin: str) -> tuple[int, str | None]:
    """Return status and allowed origin of a preflight."""
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await hub.http.options(path, headers=asks)
    return answer.status_code, answer.headers.get("access-control-allow-origin")


async def test_cors_origins_hold_on_its_own_paths(tmp_path: Path) -> None:
    """On all of them, and on no other path."""
    async with octohub(tmp_path) as hub:
        for path in ("/login/login", "/api/login/login", "/user/info", "/node/ws", "/status"):
            assert await preflight(hub, path, FRONT) == (204, FRONT), path
            assert await preflight(hub, path, EVIL) == (403, None), path
        for path in ("/api/v1/envelopes", "/metrics", "/api/relay/send"):
            assert await preflight(hub, path, FRONT) == (403, None), path
        answer = await hub.http.post("/login/login", json={}, headers={"Origin": FRONT})
        assert answer.status_code == 400
        assert answer.headers.get_list("access-control-allow-origin") == [FRONT]
    async with octohub(tmp_path, SETTINGS + f'cors_origins = ["{EVIL}"]\n') as hub:
        assert await preflight(hub, "/login/login", FRONT) == (403, None)
        assert await preflight(hub, "/login/login", EVIL) == (204, EVIL)
        headers = {"Origin": EVIL}
        # The page may knock; that everybody can sign an address is no reason to let it in.
        assert (await refused(hub.signed_url("7"), headers))[0] == 401


async def test_a_client_that_says_the_address_it_was_given(tmp_path: Path) -> None:
    """websocket-client sends an origin of its own making."""
    async with octohub(tmp_path) as hub:
        url = await hub.url()

        def connected() -> Any:
            socket = websocket.create_connection(url, timeout=10)
            said = json.loads(socket.recv())
            socket.close()
            return said

        assert (await asyncio.to_thread(connected))["type"] == "connected"


async def test_the_hub_says_that_it_is_open(tmp_path: Path) -> None:
    """Unless there are keys, and the status is not public."""
    async with octohub(tmp_path) as hub:
        told = open_access(hub.core, loopback=True)
        assert told.endswith("to local requests: /metrics, OctoHub (shipped keys), /status")
    table = 'signature_key = "own"\nws_signature_key = "own too"\npublic_status = true\n'
    async with octohub(tmp_path, SETTINGS + table) as hub:
        assert open_access(hub.core, loopback=True).endswith("/metrics; to everybody: /status")
