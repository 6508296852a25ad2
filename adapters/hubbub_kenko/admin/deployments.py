"""Deployments: which package shall run where, and how it is."""

from __future__ import annotations

import secrets
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import delete, insert, select, update
from sqlmodel import col

from hubbub import Hub
from hubbub.envelope import rfc3339
from hubbub.errors import ConflictError, HubError, NotFoundError
from hubbub.store.tables import table_of
from hubbub_kenko.admin.remote import RemoteOutput
from hubbub_kenko.admin.runners import LOCAL, Runners, object_in
from hubbub_kenko.admin.shelf import Shelf, manifest_of
from hubbub_kenko.admin.tables import KenkoDeploymentRow, KenkoPackageRow
from hubbub_kenko.apps import Apps
from hubbub_kenko.operations import PREFIX
from hubbub_kenko.runner.output import OutputLine
from hubbub_kenko.runner.packages import check_env
from hubbub_kenko.runner.processes import Processes, Status
from hubbub_kenko.wire import RunnerOutput

__all__ = ["ACTUAL", "MAX_DEPLOYMENTS", "Deployments", "shown"]

MAX_DEPLOYMENTS: Final = 1000

ACTUAL: Final = frozenset({"starting", "running", "backoff", "stopped", "failed"})
"""What a runner may say of a deployment; `unknown` while it is away."""

RUNNING: Final = frozenset({"starting", "running", "backoff"})
"""Those of one that runs, or will."""

_rows = table_of(KenkoDeploymentRow)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def shown(row: KenkoDeploymentRow) -> dict[str, Any]:
    """Return a deployment as the API shows it: variables by name only."""
    return {
        "id": row.id,
        "package_id": row.package_id,
        "runner_id": row.runner_id,
        "env": sorted(msgspec.json.decode(row.env, type=dict[str, str])),
        "desired": row.desired,
        "actual": row.actual,
        "pid": row.pid,
        "restarts": row.restarts,
        "exit_code": row.exit_code,
        "reason": row.reason or None,
        "created_at": rfc3339(row.created_us),
        "updated_at": rfc3339(row.updated_us),
    }


class Deployments:
    """The deployments of one hub."""

    def __init__(self, hub: Hub, apps: Apps, shelf: Shelf) -> None:
        self._hub = hub
        self._shelf = shelf
        self._rows: dict[str, KenkoDeploymentRow] = {}
        self._processes = Processes(hub.data_dir / "kenko" / "deployments", hub.clock)
        self._remote: dict[str, RemoteOutput] = {}
        self._unfinished: set[str] = set()  # ran when their runner left, and were not halted since
        self.runners: Final = Runners(
            hub, apps, told=self._told, wrote=self._wrote, joined=self._joined
        )

    async def begin(self) -> None:
        """Run again what shall run."""
        query = select(KenkoDeploymentRow)
        rows = await self._hub.read(lambda session: session.scalars(query).all())
        self._rows = {row.id: row for row in rows}
        await self.runners.begin()
        for row in self._rows.values():
            here = row.runner_id == LOCAL
            self._note(row, Status("stopped" if here else "unknown", None, row.restarts))
            if here and row.desired == "running":
                self._hub.spawn(self._start_again(row))
            elif row.desired == "running":
                self._unfinished.add(row.id)

    async def stop(self) -> None:
        """End what runs here; it runs again when the hub does."""
        await self._processes.stop_all()

    # What there is

    def all(self) -> list[KenkoDeploymentRow]:
        """Return all of them, newest first."""
        newest = sorted(self._rows.values(), key=lambda row: (row.created_us, row.id))
        return newest[::-1]

    def get(self, deployment_id: str) -> KenkoDeploymentRow:
        """Return one.

        Raises:
            NotFoundError: no such deployment.
        """
        row = self._rows.get(deployment_id)
        if row is None:
            raise NotFoundError(f"there is no deployment {deployment_id[:64]!r}")
        return row

    def uses(self, package_id: str) -> bool:
        """Tell whether a package is deployed."""
        return any(row.package_id == package_id for row in self._rows.values())

    def output(self, row: KenkoDeploymentRow, *, after: int, limit: int) -> list[OutputLine]:
        """Return the last lines that a deployment wrote, after one of them."""
        if row.runner_id == LOCAL:
            return self._processes.output_of(row.id).after(after, limit)
        told = self._remote.get(row.id)
        return [] if told is None else told.lines.after(after, limit)

    # What is done

    async def deploy(
        self, package: KenkoPackageRow, runner_id: str, env: dict[str, str]
    ) -> KenkoDeploymentRow:
        """Put a package on a runner, stopped.

        Raises:
            NotFoundError: no such runner.
            ConflictError: the runner lacks a label, or there are too many deployments.
            PackageError: a variable that cannot be.
        """
        check_env(env)
        if len(self._rows) >= MAX_DEPLOYMENTS:
            raise ConflictError(f"there are {MAX_DEPLOYMENTS} deployments, which is the limit")
        labels = self.runners.labels_of(runner_id)
        for name, value in manifest_of(package).runner.labels.items():
            if labels.get(name) != value:
                raise ConflictError(
                    f"the package wants a runner with {name} = {value!r}; this one has "
                    f"{labels.get(name)!r}"
                )
        now_us = self._hub.clock.now_us()
        row = KenkoDeploymentRow(
            id=f"dep_{secrets.token_hex(8)}",
            package_id=package.id,
            runner_id=runner_id,
            env=msgspec.json.encode(env).decode(),
            desired="stopped",
            actual="stopped",
            created_us=now_us,
            updated_us=now_us,
        )
        await self._hub.execute((insert(_rows), [row.model_dump()]))
        self._rows[row.id] = row
        return row

    async def start(self, row: KenkoDeploymentRow, *, again: bool = False) -> None:
        """Let it run.

        Args:
            again: It ran when its runner left: what has ended by itself meanwhile stays so.

        Raises:
            UnavailableError: its runner is away, or cannot.
        """
        package = await self._shelf.get(row.package_id)
        manifest = manifest_of(package)
        env = {**manifest.env, **msgspec.json.decode(row.env, type=dict[str, str])}
        row.desired = "running"
        if row.runner_id == LOCAL:
            await self._processes.start(
                row.id,
                self._shelf.path_of(package),
                entry=manifest.entry,
                env=env,
                changed=lambda status: self._note(row, status),
            )
            return
        facts: dict[str, Any] = {
            "deployment_id": row.id,
            "entry": manifest.entry,
            "env": env,
            "package": {
                "id": package.id,
                "sha256": package.sha256,
                "size": package.size,
                "path": f"{PREFIX}/packages/{package.id}/content?{self._shelf.sign(package.id)}",
            },
        }
        if again:
            facts["again"] = True
        self._note(row, Status("starting", None, row.restarts))
        self._said(row, await self._ask(row, "start", **facts))

    async def halt(self, row: KenkoDeploymentRow) -> None:
        """Let it end.

        Raises:
            UnavailableError: its runner is away, or cannot.
        """
        row.desired = "stopped"
        self._unfinished.discard(row.id)
        if row.runner_id == LOCAL:
            await self._processes.stop(row.id)
            if row.actual != "stopped":
                self._note(row, Status("stopped", None, row.restarts, row.exit_code))
        else:
            self._note(row, Status(row.actual, row.pid, row.restarts, row.exit_code, row.reason))
            self._said(row, await self._ask(row, "stop", deployment_id=row.id))

    async def remove(self, row: KenkoDeploymentRow) -> None:
        """Let it end, and forget it.

        Raises:
            UnavailableError: its runner cannot; one that is gone for good is removed first.
        """
        if row.runner_id == LOCAL:
            await self._processes.remove(row.id)
        elif any(one["id"] == row.runner_id for one in self.runners.shown()):
            await self._ask(row, "remove", deployment_id=row.id)
        self._rows.pop(row.id, None)
        self._remote.pop(row.id, None)
        self._unfinished.discard(row.id)
        await self._hub.execute((delete(_rows).where(col(KenkoDeploymentRow.id) == row.id), []))

    async def _ask(self, row: KenkoDeploymentRow, op: str, **facts: Any) -> dict[str, Any]:  # noqa: ANN401
        try:
            return await self.runners.ask(row.runner_id, op, **facts)
        except HubError as error:
            self._note(row, Status("unknown", None, row.restarts, row.exit_code, error.message))
            raise

    async def _start_again(self, row: KenkoDeploymentRow, *, again: bool = False) -> None:
        try:
            await self.start(row, again=again)
        except HubError as error:
            if row.runner_id == LOCAL:  # of a runner `_ask` has noted it
                self._note(row, Status("failed", None, row.restarts, row.exit_code, error.message))
            log.warning("kenko.not_deployed", deployment=row.id, error=error.message)

    # What is told

    def _joined(self, runner_id: str) -> None:
        """A runner is here (again): let run there what shall."""
        for row in self._rows.values():
            if row.runner_id == runner_id and row.desired == "running":
                again = row.id in self._unfinished
                self._unfinished.discard(row.id)
                self._hub.spawn(self._start_again(row, again=again))

    def _told(self, runner_id: str, said: dict[str, Any]) -> None:
        """A runner tells something without having been asked, or has left."""
        if said.get("gone"):
            for one in self._rows.values():
                if one.runner_id == runner_id:
                    self._left(one)
            return
        deployment_id, data = said.get("deployment_id"), object_in(said, "data") or said
        row = self._rows.get(str(deployment_id))
        runs = data.get("actual") in RUNNING
        if row is not None and row.runner_id == runner_id:
            self._said(row, data)
            if runs and row.desired == "stopped":  # halted while its runner was away
                self._hub.spawn(self._tidy(runner_id, "stop", row.id))
        elif row is None and runs:
            self._hub.spawn(self._tidy(runner_id, "remove", str(deployment_id)))

    def _left(self, row: KenkoDeploymentRow) -> None:
        """Note that nobody can tell how a deployment is."""
        if row.desired == "running":
            self._unfinished.add(row.id)
        reason = "its runner is not connected"
        self._note(row, Status("unknown", None, row.restarts, row.exit_code, reason))

    async def _tidy(self, runner_id: str, op: str, deployment_id: str) -> None:
        """Have a runner end what nobody wants."""
        try:
            await self.runners.ask(runner_id, op, deployment_id=deployment_id)
        except HubError as error:
            log.warning("kenko.not_tidied", deployment=deployment_id[:64], error=error.message)

    def _wrote(self, runner_id: str, output: RunnerOutput) -> None:
        """Keep what a deployment of a runner wrote."""
        row = self._rows.get(output.deployment_id)
        if row is not None and row.runner_id == runner_id:
            kept = self._remote.setdefault(row.id, RemoteOutput())
            kept.take(output, self._hub.clock.now_us())

    def _said(self, row: KenkoDeploymentRow, data: dict[str, Any]) -> None:
        """Note what a runner says of a deployment, as far as that can be."""
        actual = data.get("actual")
        pid, restarts, code = (_number(data.get(name)) for name in ("pid", "restarts", "exit_code"))
        status = Status(
            actual if isinstance(actual, str) and actual in ACTUAL else row.actual,
            pid,
            row.restarts if restarts is None else restarts,
            code,
            str(data.get("reason") or "")[:500],
        )
        self._note(row, status)

    def _note(self, row: KenkoDeploymentRow, status: Status) -> None:
        """Keep how a deployment is."""
        row.actual, row.pid, row.exit_code = status.actual, status.pid, status.exit_code
        row.restarts, row.reason = status.restarts, status.reason
        ended_well = status.actual == "stopped" and status.exit_code == 0
        if ended_well or status.actual == "failed":
            row.desired = "stopped"
        row.updated_us = self._hub.clock.now_us()
        values = row.model_dump(exclude={"id", "package_id", "runner_id", "env", "created_us"})
        changed = update(_rows).where(col(KenkoDeploymentRow.id) == row.id).values(**values)
        self._hub.spawn(self._write(changed))

    async def _write(self, statement: Any) -> None:  # noqa: ANN401  # as SQLAlchemy has it
        try:
            await self._hub.execute((statement, []))
        except HubError as error:
            log.warning("kenko.deployment_not_written", error=str(error))


def _number(value: object) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    return int(str(value)) if known else None
