"""A hub with kenko on a real port, its administrator, and plain applications."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from hubbub.core import Core
from hubbub.testing import serving_hub

ADMIN = "the-admin-token-of-the-tests"
TOML = """
[hub]
drain_timeout = 0.05
[adapters.kenko]
enabled = true
"""
RUNNERS = TOML + "runners = true\n"
MANIFEST = 'name = "app"\nversion = "1.0"\nentry = "app.py"\n'


@dataclass(slots=True)
class Kenko:
    """A running hub and its administrator."""

    core: Core
    client: httpx2.AsyncClient
    url: str

    async def get(self, path: str, **query: Any) -> Any:
        """Read a path and return the answer, which is a success."""
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: object = None, *, status: int = 200) -> Any:
        """Post a body and return the answer, which has this status."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def upload(self, content: bytes) -> httpx2.Response:
        """Upload a zip."""
        headers = {"content-type": "application/zip"}
        return await self.client.post("/packages", content=content, headers=headers)

    async def until(self, path: str, **facts: Any) -> Any:
        """Read a path until it says so."""
        async with asyncio.timeout(20):
            while True:
                shown = await self.get(path)
                if all(shown[name] == value for name, value in facts.items()):
                    return shown
                await asyncio.sleep(0.02)

    async def log_of(self, deployment: str, text: str) -> list[str]:
        """Read the output of a deployment until it has a text."""
        async with asyncio.timeout(20):
            while True:
                items = (await self.get(f"/deployments/{deployment}/log"))["items"]
                lines = [item["text"] for item in items]
                if any(text in line for line in lines):
                    return lines
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running_kenko(folder: Path, toml: str = TOML) -> AsyncGenerator[Kenko]:
    """Run a hub with kenko."""
    environ = {"HUBBUB_ADMIN_TOKEN": ADMIN}
    async with serving_hub(folder, toml, environ=environ) as hub:
        headers = {"authorization": f"Bearer {ADMIN}"}
        base = f"{hub.main.url}/api/kenko"
        async with httpx2.AsyncClient(
            base_url=base, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield Kenko(hub.core, client, hub.main.url)


class PlainApp:
    """An application that speaks the seed's JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.id = ""

    async def send(self, kind: str, **data: Any) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps({"type": kind, "data": data}))

    async def receive(self, kind: str) -> Any:
        """Return the data of the next frame of a type."""
        async with asyncio.timeout(20):
            while True:
                frame = json.loads(await self.socket.recv())
                if frame["type"] == kind:
                    return frame.get("data")


@asynccontextmanager
async def application(kenko: Kenko, name: str = "bot", **register: Any) -> AsyncGenerator[PlainApp]:
    """Register an application and wait until it runs."""
    async with connect(kenko.url.replace("http", "ws") + "/", proxy=None) as socket:
        app = PlainApp(socket)
        await app.send("register", name=name, **register)
        answer = await app.receive("register")
        assert answer["success"], answer
        app.id = answer["id"]
        await app.receive("start")
        yield app


def zipped(files: Mapping[str, str | bytes], *, compressed: bool = True) -> bytes:
    """Return a zip of files."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as package:
        for name, content in files.items():
            package.writestr(name, content)
    return buffer.getvalue()


def package(code: str, manifest: str = MANIFEST, **more: str | bytes) -> bytes:
    """Return a package that runs a program."""
    return zipped({"kenko-app.toml": manifest, "app.py": code, **more})
