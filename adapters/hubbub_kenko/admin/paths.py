"""The paths of the simulator, of packages, deployments and runners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from starlette.routing import BaseRoute

from hubbub.envelope import rfc3339
from hubbub.errors import ForbiddenError
from hubbub.web import Call, Reply, limit_of
from hubbub_kenko.admin import deployments as deploying
from hubbub_kenko.admin import simulator as simulating
from hubbub_kenko.admin import specs
from hubbub_kenko.admin.features import Features, audit
from hubbub_kenko.admin.runners import LOCAL
from hubbub_kenko.admin.simulator import Said
from hubbub_kenko.admin.specs import Deploy, Invitation
from hubbub_kenko.admin.uploads import package_paths
from hubbub_kenko.operations import Path, number_of, numbered, operations, place_of, placed

__all__ = ["RunnersOffError", "routes"]


class RunnersOffError(ForbiddenError):
    """Uploaded applications may not be run here."""

    code = "runners_off"

    def __init__(self) -> None:
        super().__init__(
            "uploaded applications are not run here; the operator may set adapters.kenko.runners"
        )


def routes(features: Callable[[], Features | None]) -> Sequence[BaseRoute]:
    """Return the routes; `features()` is None while the adapter is down."""
    said, all_, one = "/simulate/{session}/messages", "/deployments", "/deployments/{id}"
    paths: list[Path[Features]] = [
        Path("POST", "/simulate", _simulate, "Talk as a virtual user", specs.SIMULATE),
        Path("GET", said, _conversation, "A conversation", specs.CONVERSATION),
        *package_paths(),
        Path("GET", all_, _deployments, "Deployments, newest first", specs.DEPLOYMENTS),
        Path("POST", all_, _deploy, "Put a package on a runner", specs.DEPLOY),
        Path("GET", one, _deployment, "A deployment", specs.DEPLOYMENT),
        Path("DELETE", one, _remove_deployment, "Remove one", specs.REMOVE_DEPLOYMENT),
        Path("POST", f"{one}/start", _start, "Let one run", specs.RUN),
        Path("POST", f"{one}/stop", _stop, "Let one end", specs.HALT),
        Path("POST", f"{one}/restart", _restart, "Let one run anew", specs.RUN),
        Path("GET", f"{one}/log", _log, "Its last lines", specs.LOG),
        Path("GET", "/runners", _runners, "Runners", specs.RUNNERS),
        Path("POST", "/runners/join-token", _invite, "Invite a runner", specs.INVITE),
        Path("DELETE", "/runners/{id}", _remove_runner, "Remove one", specs.REMOVE_RUNNER),
    ]
    return operations(features, paths)


# Simulator


async def _simulate(now: Features, call: Call) -> Reply:
    """Say something as a virtual user."""
    return Reply(200, await now.simulator.say(await call.json(Said)))


async def _conversation(now: Features, call: Call) -> Reply:
    """List a conversation, oldest first."""
    limit, after = limit_of(call), number_of(call)
    messages = now.simulator.messages
    rows = await messages(call.params["session"], after=after, limit=limit + 1)
    return numbered(rows, limit, lambda row: row.seq or 0, simulating.shown)


# Deployments


async def _deployments(now: Features, call: Call) -> Reply:
    """List deployments, newest first."""
    limit, place = limit_of(call), place_of(call)
    rows = now.deployments.all()
    if place is not None:
        rows = [row for row in rows if (row.created_us, row.id) < place]
    return placed(rows, limit, lambda row: (row.created_us, row.id), deploying.shown)


async def _deployment(now: Features, call: Call) -> Reply:
    """Show a deployment."""
    return Reply(200, deploying.shown(now.deployments.get(call.params["id"])))


async def _deploy(now: Features, call: Call) -> Reply:
    """Put a package on a runner, and start it if that is wanted."""
    _may_run(now)
    wanted = await call.json(Deploy)
    package = await now.shelf.get(wanted.package_id)
    row = await now.deployments.deploy(package, wanted.runner_id, wanted.env)
    await audit(now, call, "kenko.deploy", row.id, f"{package.id} on {row.runner_id}")
    if wanted.autostart:
        await now.deployments.start(row)
    return Reply(201, deploying.shown(row))


async def _start(now: Features, call: Call) -> Reply:
    """Let a deployment run."""
    _may_run(now)
    row = now.deployments.get(call.params["id"])
    await now.deployments.start(row)
    await audit(now, call, "kenko.deployment_start", row.id)
    return Reply(200, deploying.shown(row))


async def _stop(now: Features, call: Call) -> Reply:
    """Let a deployment end."""
    row = now.deployments.get(call.params["id"])
    await now.deployments.halt(row)
    await audit(now, call, "kenko.deployment_stop", row.id)
    return Reply(200, deploying.shown(row))


async def _restart(now: Features, call: Call) -> Reply:
    """Let a deployment end, and run again."""
    _may_run(now)
    row = now.deployments.get(call.params["id"])
    await now.deployments.halt(row)
    await now.deployments.start(row)
    await audit(now, call, "kenko.deployment_restart", row.id)
    return Reply(200, deploying.shown(row))


async def _remove_deployment(now: Features, call: Call) -> Reply:
    """Let a deployment end, and forget it."""
    row = now.deployments.get(call.params["id"])
    await now.deployments.remove(row)
    await audit(now, call, "kenko.deployment_removed", row.id)
    return Reply(204)


async def _log(now: Features, call: Call) -> Reply:
    """List the last lines of output, oldest first."""
    row = now.deployments.get(call.params["id"])
    limit = limit_of(call)
    lines = now.deployments.output(row, after=number_of(call), limit=limit + 1)
    return numbered(
        lines,
        limit,
        lambda line: line.number,
        lambda line: {"number": line.number, "time": rfc3339(line.at_us), "text": line.text},
    )


# Runners


async def _runners(now: Features, call: Call) -> Reply:
    """List runners; the hub itself is one when it may run applications."""
    del call
    items = now.deployments.runners.shown()
    on: dict[str, int] = {}
    for row in now.deployments.all():
        on[row.runner_id] = on.get(row.runner_id, 0) + 1
    if not now.room.settings.runners:
        items = [one for one in items if one["id"] != LOCAL]
    counted = [{**one, "deployments": on.get(one["id"], 0)} for one in items]
    return Reply(200, {"items": counted, "next": None})


async def _invite(now: Features, call: Call) -> Reply:
    """Make a runner that may join; its token is shown this once."""
    _may_run(now)
    wanted = await call.json(Invitation)
    row, token = await now.deployments.runners.invite(wanted.name, wanted.labels)
    await audit(now, call, "kenko.runner_invited", row.id, row.name)
    said: dict[str, Any] = {"id": row.id, "name": row.name, "labels": wanted.labels}
    return Reply(201, {**said, "token": token})


async def _remove_runner(now: Features, call: Call) -> Reply:
    """Forget a runner; its token admits nobody any more."""
    runner_id = call.params["id"]
    await now.deployments.runners.remove(runner_id)
    await audit(now, call, "kenko.runner_removed", runner_id)
    return Reply(204)


def _may_run(now: Features) -> None:
    if not now.room.settings.runners:
        raise RunnersOffError
