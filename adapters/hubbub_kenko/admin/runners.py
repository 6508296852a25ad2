"""Runners: the hub itself, and applications with the capability `runner` that joined by a token.

A runner is sent `runner.exec` and answers `runner.result`:

    {"id": "x1", "op": "start", "deployment_id": "dep_1", "entry": "app.py", "env": {...},
     "package": {"id": "pkg_1", "sha256": "...", "size": 123, "path": "/api/kenko/packages/..."}}
    {"id": "x1", "ok": true, "data": {"actual": "running", "pid": 17}}
    {"id": "x1", "ok": false, "error": "it cannot be fetched"}

Ops: `fetch`, `start`, `stop`, `remove`, `status`. A `start` with `again` repeats an order after the
runner was away: what has ended by itself meanwhile stays so. A result without `id` but with
`deployment_id` tells that something has changed by itself; any may have `cpu` (percent) and
`memory_total` (bytes). `runner.output` has lines that a deployment wrote.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, cast

import msgspec
import structlog
from sqlalchemy import delete, insert, select, update
from sqlmodel import col

from hubbub import Hub
from hubbub.envelope import rfc3339
from hubbub.errors import DeadlineError, HubError, NotFoundError, UnavailableError
from hubbub.store.tables import table_of
from hubbub_kenko.admin.tables import KenkoRunnerRow
from hubbub_kenko.apps import NO_RUNNERS, App, Apps
from hubbub_kenko.wire import BadRegister, Register, RunnerOutput

__all__ = ["ANSWER_S", "LOCAL", "MAX_RUNNERS", "Runners", "object_in"]

LOCAL: Final = "local"
"""Id of the runner that is the hub itself."""

ANSWER_S: Final = 30.0
"""How long a runner may take to answer."""

MAX_RUNNERS: Final = 1000

_rows = table_of(KenkoRunnerRow)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Told = Callable[[str, dict[str, Any]], None]
"""Takes the id of a runner and what it tells of itself."""

Wrote = Callable[[str, RunnerOutput], None]
"""Takes the id of a runner and output of one of its deployments."""


def object_in(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object inside of what a runner says; an empty one when there is none."""
    found: object = said.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "replace")).hexdigest()


class Runners:
    """The runners that have joined, or may."""

    def __init__(
        self, hub: Hub, apps: Apps, *, told: Told, wrote: Wrote, joined: Callable[[str], None]
    ) -> None:
        self._hub = hub
        self._apps = apps
        self._told = told
        self._wrote = wrote
        self._joined = joined
        self._runners: dict[str, KenkoRunnerRow] = {}
        self._waiting: dict[tuple[str, str], asyncio.Future[dict[str, Any]]] = {}

    async def begin(self) -> None:
        """Read who has joined, and let them come back."""
        rows = await self._hub.read(lambda session: session.scalars(select(KenkoRunnerRow)).all())
        self._runners = {row.id: row for row in rows}
        for row in rows:
            row.app_id = None
        self._apps.admits_runner = self._admits
        self._apps.on_joined.append(self._on_joined)
        self._apps.on_left.append(self._on_left)
        self._apps.on_result.append(self._on_result)
        self._apps.on_output.append(self._on_output)

    # Who there is

    async def invite(self, name: str, labels: dict[str, str]) -> tuple[KenkoRunnerRow, str]:
        """Make a runner that may join; returns it and its token, which is shown this once.

        Raises:
            UnavailableError: there are as many as there may be.
        """
        if len(self._runners) >= MAX_RUNNERS:
            raise UnavailableError(f"there are {MAX_RUNNERS} runners; remove one that is gone")
        token = secrets.token_urlsafe(32)
        row = KenkoRunnerRow(
            id=f"run_{secrets.token_hex(8)}",
            name=name,
            labels=msgspec.json.encode(labels).decode(),
            version="",
            last_seen_us=self._hub.clock.now_us(),
            token_hash=_hash(token),
        )
        await self._hub.execute((insert(_rows), [row.model_dump()]))
        self._runners[row.id] = row
        return row, token

    async def remove(self, runner_id: str) -> None:
        """Forget a runner; its token admits nobody any more.

        Raises:
            NotFoundError: no such runner.
        """
        row = self.get(runner_id)
        await self._hub.execute((delete(_rows).where(col(KenkoRunnerRow.id) == row.id), []))
        self._runners.pop(row.id, None)
        app = self._app_of(row)  # it may have come back while that was written
        if app is not None:
            app.kick()

    def get(self, runner_id: str) -> KenkoRunnerRow:
        """Return a runner.

        Raises:
            NotFoundError: no such runner.
        """
        row = self._runners.get(runner_id)
        if row is None:
            raise NotFoundError(f"there is no runner {runner_id[:64]!r}")
        return row

    def labels_of(self, runner_id: str) -> dict[str, str]:
        """Return the labels of a runner; the hub itself has none."""
        if runner_id == LOCAL:
            return {}
        return msgspec.json.decode(self.get(runner_id).labels, type=dict[str, str])

    def shown(self) -> list[dict[str, Any]]:
        """Return all of them as the API shows them, the hub itself first."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        here: dict[str, Any] = {
            "id": LOCAL,
            "name": LOCAL,
            "labels": {},
            "cpu": None,
            "memory_total": memory,
            "version": "",
            "connected": True,
            "app_id": None,
            "last_seen": rfc3339(self._hub.clock.now_us()),
        }
        return [here, *(self._shown(row) for row in self._runners.values())]

    def _shown(self, row: KenkoRunnerRow) -> dict[str, Any]:
        return {
            "id": row.id,
            "name": row.name,
            "labels": self.labels_of(row.id),
            "cpu": row.cpu,
            "memory_total": row.memory_total,
            "version": row.version,
            "connected": self._app_of(row) is not None,
            "app_id": row.app_id,
            "last_seen": rfc3339(row.last_seen_us),
        }

    # What they do

    async def ask(self, runner_id: str, op: str, **facts: Any) -> dict[str, Any]:  # noqa: ANN401
        """Have a runner do something; returns the data of its answer.

        Raises:
            NotFoundError: no such runner.
            UnavailableError: it is not connected, or says that it cannot.
            DeadlineError: no answer in time.
        """
        row = self.get(runner_id)
        app = self._app_of(row)
        if app is None:
            raise UnavailableError(f"runner {row.name!r} is not connected")
        ask_id = secrets.token_hex(8)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[row.id, ask_id] = answer
        try:
            async with asyncio.timeout(ANSWER_S):
                await app.send("runner.exec", {"id": ask_id, "op": op, **facts})
                said = await answer
        except ConnectionError:
            raise UnavailableError(f"runner {row.name!r} has just left") from None
        except TimeoutError:
            raise DeadlineError(
                f"runner {row.name!r} did not answer {op} in {ANSWER_S:.0f} s"
            ) from None
        finally:
            self._waiting.pop((row.id, ask_id), None)
        if said.get("ok") is not True:
            raise UnavailableError(f"runner {row.name!r} cannot {op}: {said.get('error')}")
        return object_in(said, "data")

    def _app_of(self, row: KenkoRunnerRow) -> App | None:
        return None if row.app_id is None else self._apps.find(row.app_id)

    # What comes from them

    def _admits(self, register: Register) -> BadRegister | None:
        row = self._of_token(register.join_token)
        if row is None:
            return NO_RUNNERS
        if register.standby and self._app_of(row) is not None:
            return BadRegister(
                "runner_connected",
                f"runner {row.name!r} is connected from elsewhere; give each a token of its own",
            )
        return None

    def _of_token(self, token: str) -> KenkoRunnerRow | None:
        wanted, found = _hash(token), None
        for row in self._runners.values():
            if hmac.compare_digest(row.token_hash, wanted):
                found = row
        return found

    def _of_app(self, app: App) -> KenkoRunnerRow | None:
        return next((row for row in self._runners.values() if row.app_id == app.id), None)

    def _on_joined(self, app: App) -> None:
        if "runner" not in app.capabilities:
            return
        row = self._of_token(app.register.join_token)
        if row is None:  # removed while it registered
            app.kick()
            return
        older = self._app_of(row)
        row.app_id, row.version = app.id, app.register.version
        self._seen(row)
        if older is not None:
            log.warning("kenko.runner_replaced", runner=row.id, name=row.name, older=older.id)
            older.replaced()
        self._joined(row.id)

    def _on_left(self, app: App) -> None:
        row = self._of_app(app)
        if row is not None:
            row.app_id = None
            self._seen(row)
            self._told(row.id, {"gone": True})

    def _on_result(self, app: App, said: dict[str, Any]) -> None:
        row = self._of_app(app)
        if row is None:
            return
        figures = object_in(said, "data") or said
        cpu, memory = figures.get("cpu"), figures.get("memory_total")
        if isinstance(cpu, int | float) and not isinstance(cpu, bool):
            row.cpu = float(cpu)
        if isinstance(memory, int) and 0 <= memory < 2**60:
            row.memory_total = memory
        self._seen(row)
        waiting = self._waiting.get((row.id, str(said.get("id"))))
        if waiting is not None and not waiting.done():
            waiting.set_result(said)
        elif "deployment_id" in said:
            self._told(row.id, said)

    def _on_output(self, app: App, output: RunnerOutput) -> None:
        row = self._of_app(app)
        if row is not None:
            self._wrote(row.id, output)

    def _seen(self, row: KenkoRunnerRow) -> None:
        row.last_seen_us = self._hub.clock.now_us()
        values = row.model_dump(exclude={"id", "name", "labels", "token_hash"})
        changed = update(_rows).where(col(KenkoRunnerRow.id) == row.id).values(**values)
        self._hub.spawn(self._write(changed))

    async def _write(self, statement: Any) -> None:  # noqa: ANN401  # as SQLAlchemy has it
        try:
            await self._hub.execute((statement, []))
        except HubError as error:
            log.warning("kenko.runner_not_written", error=str(error))
