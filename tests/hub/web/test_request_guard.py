"""Where requests come from, over real sockets: what is refused, told, and open without a secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub import hookimpl
from hubbub.hub import Hub
from hubbub.reload import Reloads
from hubbub.testing import TcpPeer, counted, serving_hub
from hubbub.web import is_local, linkable

ADMIN: Final = "the-admin-token-of-the-tests"
EVIL: Final = "https://evil.example"
APP: Final = "https://app.example"
AUTHORIZED: Final = {"authorization": f"Bearer {ADMIN}"}


class Mirror:
    """A plugin that says what it sees of a request."""

    @hookimpl
    def http_routes(self) -> list[Route]:
        """Return a page that may be linked to, and one that may not."""
        return [linkable(Route("/mirror", self.seen)), Route("/acting", self.acts)]

    async def seen(self, request: Request) -> JSONResponse:
        host = request.client.host if request.client else None
        return JSONResponse(
            {"local": is_local(request.scope), "client": host, "url": str(request.url)}
        )

    async def acts(self, request: Request) -> PlainTextResponse:
        del request
        return PlainTextResponse("done", headers={"access-control-allow-origin": "*"})


class Served:
    """A hub and who calls it."""

    def __init__(self, hub: Hub, folder: Path, client: httpx2.AsyncClient) -> None:
        self.hub = hub
        self.folder = folder
        self.client = client

    @property
    def port(self) -> int:
        return self.hub.main.address.port

    async def seen(self, **headers: str) -> Any:
        """Return what a plugin sees of a request."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.client.get("/mirror", headers=given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str = "/mirror", method: str = "GET", **headers: str) -> str:
        """Return the code with which a request is refused."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.client.request(method, path, headers=given)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code == problem["status"]
        return f"{answer.status_code} {problem['code']}"

    async def raw(self, *lines: str) -> tuple[int, Any]:
        """Send a request as it is written; return status and problem."""
        peer = await TcpPeer.connect(self.hub.main.address)
        await peer.send("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
        await peer.close()
        is_problem = b"json" in head
        return int(head.split()[1]), json.loads(body) if is_problem else body.decode()

    async def reload(self, toml: str) -> tuple[str, ...]:
        """Write another hub.toml and let the hub read it; returns what holds now."""
        (self.folder / "hub.toml").write_text(toml, encoding="utf-8")
        done = await Reloads(self.hub.core).reload(by="test")
        assert done.needs_restart == ()
        return done.applied


@asynccontextmanager
async def served(folder: Path, table: str = "", more: str = "") -> AsyncGenerator[Served]:
    """Serve a hub with a plugin; `table` is more of `[hub]`."""
    toml = f"[hub]\ndrain_timeout = 0.05\n{table}\n{more}\n"
    environ = {"HUBBUB_ADMIN_TOKEN": ADMIN}
    plugins = {"mirror": Mirror()}
    async with serving_hub(folder, toml, environ=environ, plugins=plugins) as hub:
        url = f"http://127.0.0.1:{hub.main.address.port}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            yield Served(hub, folder, client)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("GET", "/healthz"), ("POST", "/api/v1/envelopes"), ("GET", "/nothing"),
     ("OPTIONS", "/api/v1/envelopes"), ("GET", "/api/v1/stream"), ("GET", "/mirror")],
)  # fmt: skip
async def test_a_foreign_page_is_refused_on_every_path(
    tmp_path: Path, method: str, path: str
) -> None:
    """403 before anything of it is read, whatever it shows; the problem names the setting."""
    async with served(tmp_path) as hub:
        assert await hub.refused(path, method, origin=EVIL, **AUTHORIZED) == "403 foreign_origin"
        hidden = await hub.refused(path, method, sec_fetch_site="cross-site")
        assert hidden == "403 foreign_origin"
        answer = await hub.client.request(method, path, headers={"origin": EVIL})
        assert "hub.origins" in answer.json()["detail"]
        assert EVIL in answer.json()["detail"]
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        reason = "foreign_origin"
        assert counted(hub.hub.core, "hubbub_requests_refused_total", reason=reason) == 3


HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize("upgrade", [(), HANDSHAKE], ids=["http", "websocket"])
async def test_the_name_in_a_target_goes_before_host(
    tmp_path: Path, upgrade: tuple[str, ...]
) -> None:
    """RFC 9112, 3.2.2: `GET http://evil/ HTTP/1.1` asks for evil, whatever `Host` says."""
    async with served(tmp_path) as hub:
        host = f"Host: 127.0.0.1:{hub.port}"
        for target in ("http://evil.example/mirror", "HTTP://evil.example/mirror", "ws://evil/ws"):
            status, problem = await hub.raw(f"GET {target} HTTP/1.1", host, *upgrade)
            assert (status, problem["code"]) == (421, "unknown_host")
        status, _ = await hub.raw("GET http://user@127.0.0.1/mirror HTTP/1.1", host, *upgrade)
        assert status == 400  # no name that can be read
        target = f"GET http://127.0.0.1:{hub.port}/mirror HTTP/1.1"
        status, seen = await hub.raw(target, "Host: evil.example")
        assert (status, seen["local"]) == (200, True)


async def test_a_name_that_somebody_lets_resolve_here_is_refused(tmp_path: Path) -> None:
    """421, also with an origin that fits it; the problem names the setting."""
    async with served(tmp_path, 'hosts = ["hub.lan"]') as hub:
        assert await hub.refused("/metrics", host="evil.example") == "421 unknown_host"
        evil = f"evil.example:{hub.port}"
        assert await hub.refused(host=evil, origin=f"http://{evil}") == "421 unknown_host"
        answer = await hub.client.get("/healthz", headers={"host": "evil.example"})
        assert "hub.hosts" in answer.json()["detail"]
        assert not (await hub.seen(host="hub.lan"))["local"]
        assert (await hub.client.get("/metrics", headers={"host": "hub.lan"})).status_code == 401
        # The forwarding headers of a page that came by such a name open nothing.
        told = {"host": evil, "origin": f"http://{evil}", "x-forwarded-for": "127.0.0.1"}
        assert (await hub.client.get("/metrics", headers=told)).status_code == 401


async def test_headers_that_are_there_twice(tmp_path: Path) -> None:
    """The second one is no way around the first, nor the first around the second."""
    async with served(tmp_path, 'origins = ["https://app.example"]') as hub:
        own = f"127.0.0.1:{hub.port}"
        get = "GET /metrics HTTP/1.1"
        for hosts in ([own, "evil.example"], ["evil.example", own], [own, own]):
            status, why = await hub.raw(get, *(f"Host: {host}" for host in hosts))
            assert (status, "more than one Host" in why) == (400, True)
        for origins in ([APP, EVIL], [EVIL, APP], [f"http://{own}"] * 2):
            lines = (f"Origin: {origin}" for origin in origins)
            status, problem = await hub.raw(get, f"Host: {own}", *lines)
            assert (status, problem["code"]) == (403, "foreign_origin")
        status, why = await hub.raw(get)
        assert (status, "no Host" in why) == (400, True)
        status, problem = await hub.raw("GET /metrics HTTP/1.0")
        assert (status, problem["code"]) == (401, "unauthorized")  # it need not have one


async def test_programs_and_own_pages_go_on_as_ever(tmp_path: Path) -> None:
    """No origin, that of the address typed, that of a page of the hub's own."""
    async with served(tmp_path) as hub:
        assert (await hub.seen())["local"]
        assert (await hub.seen(origin=f"http://127.0.0.1:{hub.port}"))["local"]
        typed = f"localhost:{hub.port}"
        assert (await hub.seen(host=typed, origin=f"https://{typed}"))["local"]
        page = {"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"}
        assert (await hub.seen(**page))["local"]
        answer = await hub.client.get("/mirror", headers={"origin": str(hub.client.base_url)})
        assert "access-control-allow-origin" not in answer.headers


async def test_links_lead_to_pages_that_change_nothing(tmp_path: Path) -> None:
    """The hub's own, and those of plugins that say so."""
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    async with served(tmp_path) as hub:
        given = {name.replace("_", "-"): value for name, value in link.items()}
        assert (await hub.client.get("/healthz", headers=given)).status_code == 200
        assert (await hub.client.get("/mirror", headers=given)).status_code == 200
        assert (await hub.client.get("/nothing", headers=given)).status_code == 404
        assert await hub.refused("/acting", **link) == "403 foreign_origin"
        assert await hub.refused("/mirror", "POST", **link) == "403 foreign_origin"
        assert await hub.refused("/healthz", **{**link, "sec_fetch_mode": "no-cors"}) == (
            "403 foreign_origin"
        )


async def test_named_origins_are_told_so(tmp_path: Path) -> None:
    """They alone, in one place: what a plugin says beside is left out."""
    async with served(tmp_path, f'origins = ["{APP}", "null"]') as hub:
        for origin in (APP, "null"):
            answer = await hub.client.get("/acting", headers={"origin": origin})
            assert answer.status_code == 200
            assert answer.headers.get_list("access-control-allow-origin") == [origin]
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers
            assert not (await hub.seen(origin=origin))["local"]
        # An error is told too: the page could not read it else.
        answer = await hub.client.get("/metrics", headers={"origin": APP})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == APP
        assert await hub.refused(origin="http://app.example") == "403 foreign_origin"


async def test_preflights_of_named_origins_are_answered(tmp_path: Path) -> None:
    """With what was asked for; the request itself decides on the rest."""
    async with served(tmp_path, f'origins = ["{APP}"]') as hub:
        asks = {
            "origin": APP,
            "access-control-request-method": "DELETE",
            "access-control-request-headers": "authorization,content-type",
            "access-control-request-private-network": "true",
        }
        answer = await hub.client.options("/api/v1/routes/x", headers=asks)
        assert (answer.status_code, answer.content) == (204, b"")
        told = {k: v for k, v in answer.headers.items() if k.startswith("access-control-")}
        assert told == {
            "access-control-allow-origin": APP,
            "access-control-allow-methods": "DELETE",
            "access-control-allow-headers": "authorization,content-type",
            "access-control-allow-private-network": "true",
            "access-control-max-age": "600",
        }
        # One that is no preflight, or of a page of the hub's own, goes to its route.
        assert await hub.refused("/api/v1/envelopes", "OPTIONS", origin=APP) == (
            "405 method_not_allowed"
        )
        foreign = {**asks, "origin": EVIL}
        assert (await hub.client.options("/api/v1/routes/x", headers=foreign)).status_code == 403


async def test_a_stream_wants_an_origin_too(tmp_path: Path) -> None:
    """A handshake that is refused is answered with the problem; a named page comes in."""
    async with served(tmp_path, f'origins = ["{APP}"]') as hub:
        url = f"ws://127.0.0.1:{hub.port}/api/v1/stream?name=x"
        for headers, status, code in (
            ({"Origin": EVIL}, 403, "foreign_origin"),
            ({"Origin": "null"}, 403, "foreign_origin"),
            ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403, "foreign_origin"),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url, additional_headers={**AUTHORIZED, **headers}, proxy=None):
                    pass
            response = refused.value.response
            assert response.status_code == status
            assert response.headers["content-type"] == "application/problem+json"
            assert json.loads(bytes(response.body or b""))["code"] == code
        for origin in (None, APP, f"http://127.0.0.1:{hub.port}"):
            headers = AUTHORIZED if origin is None else {**AUTHORIZED, "Origin": origin}
            async with connect(url, additional_headers=headers, proxy=None) as socket:
                assert json.loads(await socket.recv())["type"] == "hello"


async def test_metrics_are_open_to_local_requests_alone(tmp_path: Path) -> None:
    """Not to what was forwarded, and not on a hub that has a public address."""
    async with served(tmp_path) as hub:
        assert (await hub.client.get("/metrics")).status_code == 200
        for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-proto"):
            answer = await hub.client.get("/metrics", headers={header: "127.0.0.1"})
            assert answer.status_code == 401, header
            answer = await hub.client.get("/metrics", headers={header: "x", **AUTHORIZED})
            assert answer.status_code == 200, header
    async with served(tmp_path, 'public_url = "https://hub.example.org"') as hub:
        assert (await hub.client.get("/metrics")).status_code == 401
        own = {"origin": "https://hub.example.org", "host": "hub.example.org", **AUTHORIZED}
        assert (await hub.client.get("/metrics", headers=own)).status_code == 200


async def test_a_wide_listener_has_no_local_requests(tmp_path: Path) -> None:
    """Bound to every address, and asked over 127.0.0.1; by any name."""
    async with served(tmp_path, 'host = "0.0.0.0"') as hub:
        assert not (await hub.seen())["local"]
        assert not (await hub.seen(host="hub"))["local"]
        assert (await hub.client.get("/metrics")).status_code == 401
        assert await hub.refused(origin=EVIL, host="hub") == "403 foreign_origin"


async def test_a_trusted_proxy_says_who_calls(tmp_path: Path) -> None:
    """The client, the scheme and the host that it asked for are seen by all that comes behind."""
    async with served(tmp_path, 'trusted_proxies = ["127.0.0.1"]') as hub:
        told = {
            "x_forwarded_for": "127.0.0.1, 192.0.2.7",
            "x_forwarded_proto": "https",
            "x_forwarded_host": "hub.example.org",
        }
        expected = {
            "local": False, "client": "192.0.2.7", "url": "https://hub.example.org/mirror",
        }  # fmt: skip
        assert await hub.seen(**told) == expected
        assert await hub.seen(**told, origin="https://hub.example.org") == expected
        assert await hub.refused(**told, origin=EVIL) == "403 foreign_origin"
        assert not (await hub.seen())["local"]
    async with served(tmp_path) as hub:
        seen = await hub.seen(**told)
        assert (seen["local"], seen["client"]) == (False, "127.0.0.1")
        assert seen["url"].startswith("http://127.0.0.1:")


async def test_the_lists_are_read_again(tmp_path: Path) -> None:
    """A reload takes trust away, and gives it, without a restart."""
    async with served(tmp_path, f'origins = ["{APP}"]') as hub:
        assert not (await hub.seen(origin=APP))["local"]
        head = "[hub]\ndrain_timeout = 0.05\n"
        applied = await hub.reload(
            head + 'hosts = ["hub.lan"]\npublic_url = "https://hub.example.org"\n'
            'trusted_proxies = ["127.0.0.1"]\n'
        )
        assert applied == ("hub.hosts", "hub.origins", "hub.public_url", "hub.trusted_proxies")
        assert await hub.refused(origin=APP) == "403 foreign_origin"
        assert (await hub.seen(host="hub.lan", x_forwarded_for="192.0.2.1"))[
            "client"
        ] == "192.0.2.1"
        assert (await hub.client.get("/metrics")).status_code == 401
        await hub.reload(head)
        assert (await hub.client.get("/metrics")).status_code == 200


async def test_a_refused_request_leaves_its_connection_good(tmp_path: Path) -> None:
    """Its body is skipped, and the next request on the same connection is answered."""
    async with served(tmp_path) as hub:
        body = b"x" * 200_000
        for _ in range(3):
            answer = await hub.client.post(
                "/api/v1/envelopes", content=body, headers={"origin": EVIL}
            )
            assert answer.status_code == 403
            assert (await hub.seen())["local"]


async def test_many_pages_do_not_fill_the_memory(tmp_path: Path) -> None:
    """What is remembered of hosts and origins is bounded."""
    async with served(tmp_path) as hub:
        guard = hub.hub.core.app._guard  # type: ignore[union-attr]
        for number in range(5000):
            scope = {
                "type": "http", "method": "GET", "http_version": "1.1", "client": ("127.0.0.1", 1),
                "headers": [(b"host", b"127.0.0.1"), (b"origin", b"http://h%d" % number),
                            (b"x-%d" % number, b"")],
            }  # fmt: skip
            guard.judge(scope)
        assert len(guard._trust._remembered) <= 4096
        await asyncio.sleep(0)
        assert (await hub.seen())["local"]
