"""Who may connect: by origin, by name, from this machine, by a token. With clients as they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest
import socketio
import websocket
from websockets.exceptions import InvalidStatus

from hubbub.open_access import open_access
from hubbub.reload import Reloads
from hubbub.testing import serving_hub
from tests.adapters.kenko.serving import REGISTER, Kenko, running_kenko

EVIL: Final = "https://evil.example"
APP: Final = "https://app.example"
POLL: Final = "/socket.io/?EIO=4&transport=polling"


async def refused(kenko: Kenko, headers: Mapping[str, str], path: str = "/ws") -> tuple[int, Any]:
    """Return status and body of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as error:
        async with kenko.client(path, additional_headers=headers):
            pass
    response = error.value.response
    return response.status_code, json.loads(bytes(response.body or b"{}"))


HOSTILE: Final[dict[str, tuple[dict[str, str], int]]] = {
    "a page": ({"Origin": EVIL}, 403),
    "a sandboxed page": ({"Origin": "null"}, 403),
    "a file": ({"Origin": "file://"}, 403),
    "a page of another port": ({"Origin": "http://127.0.0.1:3000"}, 403),
    "one that hides its origin": ({"Sec-Fetch-Site": "same-site"}, 403),
    "a forwarded one": ({"X-Forwarded-For": "127.0.0.1"}, 401),
    "one behind a cache": ({"Via": "1.1 squid"}, 401),
}


@pytest.mark.parametrize(("headers", "status"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("path", ["/", "/ws", "/socket.io/?EIO=4&transport=websocket"])
async def test_hostile_handshakes(
    tmp_path: Path, path: str, headers: dict[str, str], status: int
) -> None:
    """No page of another origin connects, and without a token nobody who is not local registers."""
    async with running_kenko(tmp_path) as kenko:
        if status == 401 and path.startswith("/socket.io"):
            async with kenko.event_client(headers=headers, transports=["websocket"]) as app:
                await app.emit("auth", None)
                assert await app.next("auth") is False
                assert "local" in (await app.next("register"))["message"]
            return
        said_status, said = await refused(kenko, headers, path)
        assert said_status == status
        if status == 403:
            assert said["code"] == "foreign_origin"
            assert "hub.origins or adapters.kenko.origins" in said["detail"]
        else:
            assert "adapters.kenko.access_token" in said["error"]["message"]


async def test_polls_of_a_foreign_page(tmp_path: Path) -> None:
    """Neither the handshake nor what is posted to a session reaches Socket.IO."""
    async with running_kenko(tmp_path) as kenko:
        answer = await kenko.http.get(POLL, headers={"Origin": EVIL})
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        sid = json.loads((await kenko.http.get(POLL)).text[1:])["sid"]
        post = {"Origin": EVIL, "Content-Type": "text/plain"}
        answer = await kenko.http.post(f"{POLL}&sid={sid}", content=b"40/client,", headers=post)
        assert answer.status_code == 403
        named = {"Host": "evil.example"}
        assert (await kenko.http.get(POLL, headers=named)).status_code == 421


async def test_origins_hold_on_its_own_paths_alone(tmp_path: Path) -> None:
    """A page of the list may connect, with a token; the hub's own paths do not know it."""
    table = f'origins = ["{APP}"]\naccess_token = "s3cret"'
    async with running_kenko(tmp_path, table) as kenko:
        headers = {"Origin": APP, "Authorization": "Bearer s3cret"}
        async with kenko.client("/ws", additional_headers=headers) as app:
            await app.register()
        answer = await kenko.http.get(POLL, headers={"Origin": APP})
        assert answer.status_code == 200
        assert answer.headers.get_list("access-control-allow-origin") == [APP]
        assert "access-control-allow-credentials" not in answer.headers
        asks = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        assert (await kenko.http.options(POLL, headers=asks)).status_code == 204
        assert (await kenko.http.get("/api/kenko/apps", headers={"Origin": APP})).status_code == 200
        # A face of the hub's own path belongs to the adapter that shows it.
        face = await kenko.http.get("/api/kenko/logs", headers={"Origin": APP})
        assert face.status_code == 200
        assert face.headers.get_list("access-control-allow-origin") == [APP]
        for path in ("/api/v1/logs", "/metrics", "/healthz", "/api/stats"):
            assert (await kenko.http.get(path, headers={"Origin": APP})).status_code == 403, path
        assert (await refused(kenko, {"Origin": APP}, "/api/v1/stream"))[0] == 403


async def test_a_page_of_the_list_is_not_local(tmp_path: Path) -> None:
    """Without a token it wants `open = true`."""
    for table, status in ((f'origins = ["{APP}"]', 401), (f'origins = ["{APP}"]\nopen = true', 0)):
        async with running_kenko(tmp_path / str(status), table) as kenko:
            if status:
                assert (await refused(kenko, {"Origin": APP}))[0] == status
                continue
            async with kenko.client("/ws", additional_headers={"Origin": APP}) as app:
                await app.register()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_clients_as_they_are(tmp_path: Path, host: str) -> None:
    """websocket-client and python-socketio say the address they were given; others say nothing."""
    async with running_kenko(tmp_path) as kenko:
        port = kenko.hub.main.address.port

        def over_websocket_client() -> dict[str, Any]:
            socket = websocket.create_connection(f"ws://{host}:{port}/ws", timeout=10)
            socket.send(json.dumps(REGISTER))
            said: dict[str, Any] = json.loads(socket.recv())
            socket.close()
            return said

        said = await asyncio.to_thread(over_websocket_client)
        assert (said["type"], said["data"]["success"]) == ("register", True)

        for transport in ("polling", "websocket"):

            def over_socketio(transport: str = transport) -> Any:
                client = cast("Any", socketio.SimpleClient)()
                client.connect(f"http://{host}:{port}", namespace="/client", transports=[transport])
                client.emit("auth", None)
                event = client.receive(timeout=10)
                client.disconnect()
                return event

            assert await asyncio.to_thread(over_socketio) == ["auth", True]

        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://{host}:{port}/") as peer,
        ):
            await peer.send_json(REGISTER)
            assert (await peer.receive_json())["data"]["success"] is True
        async with kenko.event_client(transports=["polling"]) as app:
            await app.emit("auth", None)
            assert await app.next("auth") is True


UNSAFE: Final[dict[str, tuple[str, str, str]]] = {
    "the one port": ('host = "0.0.0.0"', "", "failed"),
    "its own listener": ("", 'listen = ["127.0.0.1:0", "0.0.0.0:0"]', "failed"),
    "a loopback listener beside": ("", 'listen = ["127.0.0.1:0"]', "up"),
    "open": ('host = "0.0.0.0"', "open = true", "up"),
    "with a token": ('host = "0.0.0.0"', 'access_token = "s3cret"', "up"),
}


@pytest.mark.parametrize(("hub", "table", "state"), UNSAFE.values(), ids=UNSAFE)
async def test_it_does_not_start_where_everybody_could_come(
    tmp_path: Path, hub: str, table: str, state: str
) -> None:
    """Off loopback it wants a token, or `open = true`; the hub runs without it and says so."""
    toml = f"[hub]\n{hub}\n[adapters.kenko]\nenabled = true\n{table}\n"
    async with serving_hub(tmp_path, toml) as running:
        kenko = running.core.adapters.get("kenko")
        assert kenko.state == state, kenko.reason
        assert running.core.state == "ready"
        if state == "failed":
            assert "adapters.kenko.access_token" in kenko.reason
            assert "adapters.kenko.open = true" in kenko.reason


async def test_it_starts_again_once_it_has_a_token(tmp_path: Path) -> None:
    """A restart of the adapter is enough."""
    head = '[hub]\nhost = "0.0.0.0"\n[adapters.kenko]\nenabled = true\n'
    async with serving_hub(tmp_path, head) as hub:
        assert hub.core.adapters.get("kenko").state == "failed"
        await hub.core.extensions.restart_adapter("kenko")
        assert hub.core.adapters.get("kenko").state == "failed"
        (tmp_path / "hub.toml").write_text(head + "open = true\n", encoding="utf-8")
        hub.core.keep_config(hub.core.config.read_again())
        await hub.core.extensions.restart_adapter("kenko")
        assert hub.core.adapters.get("kenko").state == "up"
        kenko = Kenko(hub, cast("Any", None))
        async with kenko.client("/ws") as app:
            await app.register()


async def test_its_origins_are_read_again(tmp_path: Path) -> None:
    """A reload names others; the adapter goes on."""
    async with running_kenko(tmp_path, f'open = true\norigins = ["{APP}"]') as kenko:
        async with kenko.client("/ws", additional_headers={"Origin": APP}):
            pass
        path = tmp_path / "hub.toml"
        toml = path.read_text(encoding="utf-8").replace(APP, EVIL)
        path.write_text(toml, encoding="utf-8")
        done = await Reloads(kenko.core).reload(by="test")
        assert (done.applied, done.needs_restart) == (("adapters.kenko.origins",), ())
        assert (await refused(kenko, {"Origin": APP}))[0] == 403
        async with kenko.client("/ws", additional_headers={"Origin": EVIL}):
            pass


async def test_the_hub_says_that_it_is_open(tmp_path: Path) -> None:
    """To whom, by its settings; nothing where a token is wanted."""
    for number, (table, told) in enumerate(
        [
            ("", "open without a secret to local requests: /metrics, KenkoGo"),
            ("open = true", "to local requests: /metrics; to everybody: KenkoGo"),
            ('access_token = "s"', "open without a secret to local requests: /metrics"),
        ]
    ):
        async with running_kenko(tmp_path / str(number), table) as kenko:
            assert open_access(kenko.core, loopback=True).endswith(told)


async def test_without_origins_engineio_judges_nothing(tmp_path: Path) -> None:
    """A page of the hub's own polls through a proxy that gives another host."""
    more = 'public_url = "https://hub.example.org"'
    toml = f'[hub]\n{more}\n[adapters.kenko]\nenabled = true\naccess_token = "s"\n'
    async with serving_hub(tmp_path, toml) as hub, aiohttp.ClientSession() as session:
        headers = {"Origin": "https://hub.example.org", "X-Forwarded-Proto": "https"}
        async with session.get(hub.main.url + POLL, headers=headers) as answer:
            assert answer.status == 200
            assert "access-control-allow-origin" not in answer.headers
