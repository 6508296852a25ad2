"""Who may use the relay without a key of its operator's own: local requests, while none is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from hubbub.hub import Hub
from hubbub.open_access import open_access
from hubbub.testing import serving_hub

KEY: Final = "lynker_relay_secret_2025"
EVIL: Final = "https://evil.example"
TASK: Final = {"from": "master", "to": "child", "type": "task", "cmd": "render"}


class Client:
    """A program that calls the relay."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.url = f"http://127.0.0.1:{hub.main.address.port}/api/relay"

    async def status(self, method: str, path: str, key: str = "", **how: Any) -> int:
        """Return the status of an answer."""
        headers = {**({"X-Relay-API-Key": key} if key else {}), **how.pop("headers", {})}
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.request(method, self.url + path, headers=headers, **how)
        return answer.status_code

    async def send(self, key: str = KEY, **headers: str) -> int:
        return await self.status("POST", "/send", key, json=TASK, headers=headers)

    async def read(self, key: str = "", **headers: str) -> int:
        return await self.status("GET", "/logs", key, headers=headers)


HOSTILE: Final[dict[str, tuple[dict[str, str], int]]] = {
    "a page": ({"Origin": EVIL}, 403),
    "a sandboxed page": ({"Origin": "null"}, 403),
    "an image": ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    "a link": ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
    "a name that resolves here": ({"Host": "evil.example"}, 421),
    "the same with its origin": ({"Host": "evil.example", "Origin": "http://evil.example"}, 421),
    "the same as if forwarded": (
        {"Host": "evil.example", "Origin": "http://evil.example", "X-Forwarded-For": "1"}, 401,
    ),
    "a proxy": ({"X-Forwarded-For": "127.0.0.1"}, 401),
    "another kind of proxy": ({"Forwarded": "for=127.0.0.1"}, 401),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "status"), HOSTILE.values(), ids=HOSTILE)
async def test_hostile_requests(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """With the shipped key, in a header or the query: no task sent, none leased, nothing read."""
    async with serving_hub(tmp_path, "[adapters.relay]\nenabled = true\n") as hub:
        client = Client(hub)
        assert await client.send() == 200
        text = {**headers, "Content-Type": "text/plain"}
        body = b'{"from":"x","to":"child","type":"task"}'
        path = f"/send?api_key={KEY}"
        assert await client.status("POST", path, content=body, headers=text) == status
        lease = f"/tasks?to=child&api_key={KEY}"
        assert await client.status("GET", lease, headers=headers) == status
        assert await client.read(**headers) == status
        assert await client.read(KEY, **headers) == status
        assert await client.status("GET", "/task-status/t_1", headers=headers) == status
        # The task is still there for a program.
        assert await client.status("GET", lease) == 200
        assert await client.read() == 200


KEYS: Final = 'api_keys = [{ name = "own", key = "a key of our own" }]'
REPEATED: Final = f'api_keys = [{{ name = "own", key = "{KEY}" }}]'

SHIPPED: Final[dict[str, tuple[str, int, int]]] = {
    "no keys": ("", 200, 401),
    "keys of one's own": (KEYS, 401, 401),
    "both": (f"{KEYS}\nallow_default_key = true", 200, 200),
    "allowed": ("allow_default_key = true", 200, 200),
    "the shipped key as an own one": (REPEATED, 200, 401),
    "the same, allowed": (f"{REPEATED}\nallow_default_key = true", 200, 200),
}


@pytest.mark.parametrize(("table", "local", "forwarded"), SHIPPED.values(), ids=SHIPPED)
async def test_the_shipped_key(tmp_path: Path, table: str, local: int, forwarded: int) -> None:
    """From local requests, while there is no other; unless it is allowed."""
    toml = f"[adapters.relay]\nenabled = true\n{table}\n"
    async with serving_hub(tmp_path, toml) as hub:
        client = Client(hub)
        assert await client.send() == local
        assert await client.send(Via="1.1 proxy") == forwarded
        if "of our own" in table:
            assert await client.send("a key of our own", Via="1.1 proxy") == 200
            assert await client.send("a key of our own", Origin=EVIL) == 403


@pytest.mark.parametrize(
    ("table", "local", "forwarded"),
    [("", 200, 401), ("public_read = true", 200, 200), ("public_read = false", 401, 401)],
)
async def test_reading(tmp_path: Path, table: str, local: int, forwarded: int) -> None:
    """Local requests read without a key unless it is written otherwise."""
    toml = f"[adapters.relay]\nenabled = true\n{KEYS}\n{table}\n"
    async with serving_hub(tmp_path, toml) as hub:
        client = Client(hub)
        assert await client.read() == local
        assert await client.read(Via="1.1 proxy") == forwarded
        assert await client.read("a key of our own", Via="1.1 proxy") == 200
        assert await client.read(Origin=EVIL) == 403
        missing = {200: 404, 401: 401}
        path = "/task-status/t_none"
        assert await client.status("GET", path) == missing[local]
        assert await client.status("GET", path, headers={"Via": "x"}) == missing[forwarded]


@pytest.mark.parametrize(
    ("hub_table", "table", "own", "main"),
    [
        ('host = "0.0.0.0"', 'listen = ["127.0.0.1:0"]', 200, 401),
        ("", 'listen = ["0.0.0.0:0"]', 401, 200),
        ('public_url = "https://hub.example.org"', 'listen = ["127.0.0.1:0"]', 401, 401),
    ],
)
async def test_each_listener_for_itself(
    tmp_path: Path, hub_table: str, table: str, own: int, main: int
) -> None:
    """What is bound to every address has no local requests, though it is asked over 127.0.0.1."""
    toml = f"[hub]\n{hub_table}\n[adapters.relay]\nenabled = true\n{table}\n"
    async with serving_hub(tmp_path, toml) as hub:
        client = Client(hub)
        assert await client.send() == main
        (listener,) = hub.core.listeners.of("relay")
        client.url = f"http://127.0.0.1:{listener.address.port}/api/relay"
        assert await client.send() == own
        assert await client.read() == own
        assert await client.send(Origin=EVIL) == 403


async def test_the_hub_says_that_it_is_open(tmp_path: Path) -> None:
    """And to whom."""
    for number, (table, told) in enumerate(
        [
            ("", "to local requests: /metrics, relay (shipped key), relay logs and task states"),
            (KEYS, "to local requests: /metrics, relay logs and task states"),
            (f"{KEYS}\npublic_read = false", "open without a secret to local requests: /metrics"),
            (
                "allow_default_key = true\npublic_read = true",
                "/metrics; to everybody: relay (shipped key), relay logs and task states",
            ),
        ]
    ):
        toml = f"[adapters.relay]\nenabled = true\n{table}\n"
        async with serving_hub(tmp_path / str(number), toml) as hub:
            assert open_access(hub.core, loopback=True).endswith(told)
            everybody = "everybody" in told
            assert bool(open_access(hub.core, loopback=False)) == everybody
