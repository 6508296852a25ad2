"""Clients leave when the access token that let them in is another one, runners when removed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from hubbub.reload import Reloads
from tests.adapters.kenko.serving import Kenko, registration, running_kenko, until

SOON_S = 2.0


async def reload(kenko: Kenko, table: str) -> None:
    """Write hub.toml and read it again; all of it holds at once."""
    file = kenko.core.config.file
    assert file is not None
    head = '[hub]\ndrain_timeout = "1s"\n\n[adapters.kenko]\nenabled = true\n'
    file.write_text(f"{head}{table}\n", encoding="utf-8")
    assert (await Reloads(kenko.core).reload(by="test")).needs_restart == ()


@pytest.mark.parametrize("before", ["first", ""], ids=["changed", "set"])
async def test_clients_leave_with_the_access_token(tmp_path: Path, before: str) -> None:
    """Both families, registered or not, also who does not read; 4401 where there are codes."""
    async with running_kenko(tmp_path, f'access_token = "{before}"') as kenko:
        headers: dict[str, Any] = {"Authorization": f"Bearer {before}"}
        async with (
            kenko.client(additional_headers=headers) as app,
            kenko.client(additional_headers=headers) as silent,
            kenko.event_client(headers=headers) as event,
        ):
            await app.register()
            silent.socket.transport.pause_reading()
            await until(lambda: len(kenko.desk.connections) == 3)
            began = monotonic()
            await reload(kenko, 'access_token = "second"')
            assert not kenko.desk.connections
            assert await app.closed() == 4401
            async with asyncio.timeout(10):
                await event.gone.wait()
            assert monotonic() - began < SOON_S
            silent.socket.transport.abort()
        with pytest.raises(InvalidStatus):
            async with kenko.client(additional_headers=headers):
                pass
        second = {"Authorization": "Bearer second"}
        async with kenko.client(additional_headers=second) as app:
            await app.register()
            await reload(kenko, 'access_token = ""')  # nobody is let in less by that
            await app.silence()


async def test_a_runner_that_is_removed_while_it_registers_is_out(tmp_path: Path) -> None:
    """Its token was good when it came, and is not when it has joined."""
    async with running_kenko(tmp_path, "runners = true") as kenko:
        made = await kenko.http.post("/api/kenko/runners/join-token", json={"name": "r1"})
        invited = made.json()
        runners: Any = kenko.desk.apps.admits_runner.__self__  # type: ignore[union-attr]
        kenko.desk.apps.on_joined.insert(0, lambda _: runners._runners.clear())
        async with kenko.client() as runner:
            await runner.send(registration(capabilities=["runner"], join_token=invited["token"]))
            assert await runner.closed() == 4004
