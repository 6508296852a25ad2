"""Who gets an address, and who comes in with one: over HTTP and by handshakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from hubbub.testing import FakeClock, counted
from tests.adapters.octohub.serving import SETTINGS, Octohub, octohub, signed

UNSIGNED = {"errcode": 1002, "errmsg": "签名验证失败"}


async def denied(hub: Octohub, url: str) -> tuple[int, str]:
    """Return status and body of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with hub.peer(url):
            pass
    body = refused.value.response.body
    return refused.value.response.status_code, bytes(body or b"").decode()


async def test_an_address_is_where_the_node_asked(tmp_path: Path) -> None:
    """Or where the configuration says; both paths give one."""
    async with octohub(tmp_path) as hub:
        base = hub.hub.main.url.replace("http", "ws", 1)
        assert (await hub.url()).startswith(f"{base}/ws/node?pc_id=node_1&timestamp=")
        assert (await hub.url(prefix="/api")).startswith(f"{base}/ws/node?pc_id=node_1&timestamp=")
    toml = SETTINGS + 'public_ws_url = "wss://hub.example.org/"\n'
    async with octohub(tmp_path, toml) as hub:
        assert (await hub.url()).startswith("wss://hub.example.org/ws/node?")


async def test_a_proxy_may_put_a_prefix_before_the_path(tmp_path: Path) -> None:
    """The node signed the path it knows."""
    async with octohub(tmp_path) as hub:
        assert (await hub.asked(prefix="/api", path="/node/ws")).status_code == 200
        assert (await hub.asked(path="/api/node/ws")).json() == UNSIGNED


@pytest.mark.parametrize(
    "headers",
    [{"X-Timestamp": ""}, {"X-Nonce": ""}, {"X-Signature": ""}, {"X-Signature": "TyWt7lqE="}],
    ids=str,
)
async def test_a_request_that_is_not_signed_is_refused(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    """All with the same answer, and counted."""
    async with octohub(tmp_path) as hub:
        answer = await hub.asked(**headers)
        assert (answer.status_code, answer.json()) == (401, UNSIGNED)
        assert counted(hub.core, "hubbub_octohub_auth_failures_total", where="api") == 1


async def test_a_request_is_good_once(tmp_path: Path) -> None:
    """The original takes it again for five minutes."""
    async with octohub(tmp_path) as hub:
        headers = signed("/node/ws", {"pc_id": "n"}, now_s=hub.now_s)
        first, second = [await hub.http.get("/node/ws?pc_id=n", headers=headers) for _ in range(2)]
        assert first.status_code == 200
        assert (second.status_code, second.json()) == (401, UNSIGNED)


async def test_an_old_request_is_refused(tmp_path: Path) -> None:
    """And one of the future."""
    clock = FakeClock()
    async with octohub(tmp_path, clock=clock) as hub:
        for off_s, status in ((-301, 401), (-299, 200), (299, 200), (301, 401)):
            headers = signed("/node/ws", {"pc_id": "n"}, now_s=hub.now_s + off_s)
            answer = await hub.http.get("/node/ws?pc_id=n", headers=headers)
            assert answer.status_code == status, off_s


async def test_a_request_without_an_id_is_refused(tmp_path: Path) -> None:
    """Signed as it is."""
    async with octohub(tmp_path) as hub:
        answer = await hub.http.get("/node/ws", headers=signed("/node/ws", {}, now_s=hub.now_s))
        assert (answer.status_code, answer.json()["errmsg"]) == (400, "pc_id required")
        long = await hub.asked("n" * 129)
        assert (long.status_code, long.json()["errcode"]) == (400, 1000)


@pytest.mark.parametrize("path", ["/ws/node", "/ws/pc"])
async def test_handshakes_without_parameters_are_refused(tmp_path: Path, path: str) -> None:
    """Before the upgrade, with an answer one can read."""
    async with octohub(tmp_path) as hub:
        base = hub.hub.main.url.replace("http", "ws", 1)
        for query in ("", "?pc_id=n", "?pc_id=n&timestamp=17", "?pc_id=&timestamp=&signature="):
            assert await denied(hub, base + path + query) == (400, '{"error":"缺少必要参数"}')


async def test_an_address_is_good_once(tmp_path: Path) -> None:
    """One that the hub gave; one that another server signed may be used again."""
    async with octohub(tmp_path) as hub:
        url = await hub.url()
        async with hub.peer(url):
            pass
        assert await denied(hub, url) == (401, '{"error":"签名验证失败"}')
        elsewhere = hub.signed_url("node_9", "node")
        for _ in range(2):
            async with hub.peer(elsewhere):
                pass
        assert counted(hub.core, "hubbub_octohub_auth_failures_total", where="ws_node") == 1


async def test_an_address_of_another_time_is_refused(tmp_path: Path) -> None:
    """On both sides of the window."""
    async with octohub(tmp_path) as hub:
        for off_s in (-310, 310):
            url = hub.signed_url("42", at=hub.now_s + off_s)
            assert (await denied(hub, url))[0] == 401


async def test_two_addresses_in_one_second_are_two(tmp_path: Path) -> None:
    """The second is signed for the next second, and both are good."""
    async with octohub(tmp_path, clock=FakeClock()) as hub:
        one, two = await hub.url(), await hub.url()
        assert one != two
        for url in (one, two):
            async with hub.peer(url):
                pass


async def test_an_address_of_a_user_is_none_of_a_node(tmp_path: Path) -> None:
    """With split keys; without them the original's signature is the same for both."""
    toml = SETTINGS + "split_keys = true\n"
    async with octohub(tmp_path, toml) as hub:
        assert (await denied(hub, hub.signed_url("42", "node")))[0] == 401
        async with hub.peer(await hub.url()):
            pass


async def test_connections_are_bounded(tmp_path: Path) -> None:
    """One more than the limit waits outside."""
    toml = SETTINGS + "max_connections = 2\n"
    async with octohub(tmp_path, toml) as hub, hub.node("a"), hub.user():
        assert await denied(hub, await hub.url("b")) == (503, '{"error":"too many connections"}')


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ("", "degraded"),
        ('signature_key = "a key of our own"', "degraded"),
        ('signature_key = "a key of our own"\nws_signature_key = "another one"', "up"),
        ("allow_default_keys = true", "up"),
        ('allow_default_keys = true\njwt_secret = "short"', "degraded"),
        (f'allow_default_keys = true\njwt_secret = "{"s" * 32}"', "up"),
    ],
)
async def test_weak_keys_stay_on_this_machine(tmp_path: Path, more: str, state: str) -> None:
    """Where others reach the hub, both must be one's own, and the secret of logins long."""
    toml = f'{SETTINGS}listen = ["0.0.0.0:0"]\n{more}\n'
    async with octohub(tmp_path, toml) as hub:
        adapter = hub.core.adapters.get("octohub")
        assert adapter.state == state
        if state != "up":
            assert "openssl rand -hex 32" in adapter.reason
            assert (await hub.http.get("/health")).status_code == 503


async def test_status_and_health(tmp_path: Path) -> None:
    """As the original tells them."""
    async with octohub(tmp_path) as hub, hub.node(), hub.user():
        health = (await hub.http.get("/health")).json()
        assert (health["status"], abs(health["timestamp"] - hub.now_s) <= 1) == ("ok", True)
        status = (await hub.http.get("/status")).json()
        assert (status["user_connections"], status["pc_connections"]) == (1, 1)
        assert status["total_connections"] == 2
        assert status["pc_details"][0]["id"] == "node_1"
        assert set(status["user_details"][0]) == {"id", "last_active", "duration"}


async def test_status_is_for_this_machine(tmp_path: Path) -> None:
    """On a listener that others reach it takes a token, also from this machine."""
    toml = f'{SETTINGS}listen = ["0.0.0.0:0"]\nallow_default_keys = true\n'
    async with octohub(tmp_path, toml) as hub:
        assert (await hub.http.get("/status")).status_code == 200
        (listener,) = hub.core.listeners.of("octohub")
        url = f"http://127.0.0.1:{listener.address.port}/status"
        assert (await hub.http.get(url)).status_code == 401
        assert (await hub.http.get(url, headers=hub.admin)).status_code == 200


async def test_an_id_that_cannot_be_decoded_is_nobodys(tmp_path: Path) -> None:
    """400 before any signature is looked at: two ids must not become one."""
    async with octohub(tmp_path) as hub:
        base = hub.hub.main.url.replace("http", "ws", 1)
        for name in ("%FF", "%ED%A0%80", "a%", "%zz"):
            answer = await hub.http.get(f"/node/ws?pc_id={name}")
            assert (answer.status_code, answer.json()["errcode"]) == (400, 1000)
            url = f"{base}/ws/node?pc_id={name}&timestamp=1&signature=x"
            assert (await denied(hub, url))[0] == 400


@pytest.mark.parametrize("name", ["X-Signature", "X-Nonce", "X-Timestamp"])
async def test_a_signed_header_is_there_once(tmp_path: Path, name: str) -> None:
    """Neither of two is the one that was signed."""
    async with octohub(tmp_path) as hub:
        headers = signed("/node/ws", {"pc_id": "n"}, now_s=hub.now_s)
        lines = [*headers.items(), (name, "other")]
        answer = await hub.http.get("/node/ws?pc_id=n", headers=lines)
        assert (answer.status_code, answer.json()["errcode"]) == (400, 1000)
