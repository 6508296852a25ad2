"""A hub behind a real server on a free port of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hubbub.core import Core
from hubbub.listeners import HttpListener
from hubbub.ports import Clock
from hubbub.testing import running_hub
from hubbub.web.app import build_app

ADMIN = "the-admin-token-of-the-tests"
FAST = "[hub]\ndrain_timeout = 0.05\nbackoff = 0.01\n"


@dataclass(slots=True)
class Served:
    """A running hub and a client that is its administrator."""

    core: Core
    url: str
    client: httpx2.AsyncClient

    async def token(self, *scopes: str, name: str = "narrow") -> dict[str, str]:
        """Make a token and return the header that carries it."""
        _, text = await self.core.tokens.create(name, scopes, expires_us=None)
        return {"authorization": f"Bearer {text}"}

    async def publish(self, subject: str, data: object = None, **more: Any) -> Any:
        """Publish and return the answer, which is a success."""
        answer = await self.client.post(
            "/api/v1/envelopes", json={"subject": subject, "data": data, **more}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        """Read a path and return the answer, which is a success."""
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pages(self, path: str, **query: Any) -> list[Any]:
        """Read all pages of a list."""
        items: list[Any] = []
        while True:
            page = await self.get(path, **query)
            items += page["items"]
            if page["next"] is None:
                return items
            query["cursor"] = page["next"]


@asynccontextmanager
async def serving(
    data_dir: Path,
    toml: str = "",
    *,
    plugins: Mapping[str, object] | None = None,
    more: Sequence[Any] = (),
    clock: Clock | None = None,
) -> AsyncGenerator[Served]:
    """Run a hub with its HTTP side."""
    environ = {"HUBBUB_ADMIN_TOKEN": ADMIN}
    async with running_hub(data_dir, toml, environ=environ, plugins=plugins, clock=clock) as core:
        listener = HttpListener(core.config.hub.host, 0)
        listener.bind()
        app = build_app(core, loopback=listener.is_loopback, more=more)
        try:
            await listener.serve(app, drain_timeout_s=1)
            headers = {"authorization": f"Bearer {ADMIN}"}
            url = f"http://127.0.0.1:{listener.address.port}"
            async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=20) as client:
                yield Served(core, url, client)
        finally:
            await listener.stop()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A hub with its HTTP side."""
    async with serving(tmp_path / "hub", FAST) as running:
        yield running


@pytest.fixture
def fuzzed(tmp_path: Path) -> Iterator[Callable[[bytes], httpx2.Response]]:
    """Post bodies from a test that is not asynchronous, to one hub for all of them."""
    with asyncio.Runner() as runner:
        context = serving(tmp_path / "hub", FAST)
        running = runner.run(context.__aenter__())

        def post(body: bytes) -> httpx2.Response:
            return runner.run(_posted(running, body))

        yield post
        runner.run(context.__aexit__(None, None, None))


async def _posted(served: Served, body: bytes) -> httpx2.Response:
    return await served.client.post("/api/v1/envelopes", content=body)
