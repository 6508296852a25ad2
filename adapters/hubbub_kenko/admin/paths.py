"""The paths of the simulator, of packages, deployments and runners."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hubbub.envelope import rfc3339
from hubbub.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    TooLargeError,
    UnavailableError,
)
from hubbub_kenko.admin import deployments as deploying
from hubbub_kenko.admin import shelf as shelving
from hubbub_kenko.admin import simulator as simulating
from hubbub_kenko.admin.bodies import shaped
from hubbub_kenko.admin.deployments import Deployments
from hubbub_kenko.admin.runners import LOCAL
from hubbub_kenko.admin.shelf import Shelf
from hubbub_kenko.admin.simulator import Said, Simulator
from hubbub_kenko.calls import PREFIX, Answer, Call, operations
from hubbub_kenko.rooms import Room
from hubbub_kenko.runner.packages import MAX_PACKAGE

__all__ = ["Features", "RunnersOffError", "routes"]

FORM: Final = b"multipart/form-data"
CHUNK: Final = 256 * 1024

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Labels = Annotated[dict[Text, Annotated[str, Meta(max_length=256)]], Meta(max_length=32)]


class RunnersOffError(ForbiddenError):
    """Uploaded applications may not be run here."""

    code = "runners_off"

    def __init__(self) -> None:
        super().__init__(
            "uploaded applications are not run here; the operator may set adapters.kenko.runners"
        )


class Features:
    """What these paths work with while the adapter is up."""

    def __init__(self, simulator: Simulator, shelf: Shelf, deployments: Deployments) -> None:
        self.simulator: Final = simulator
        self.shelf: Final = shelf
        self.deployments: Final = deployments


class Deploy(msgspec.Struct, forbid_unknown_fields=True):
    """A package to put on a runner."""

    package_id: Text
    runner_id: Text = LOCAL
    env: dict[str, str] = {}
    autostart: bool = False


class Invitation(msgspec.Struct, forbid_unknown_fields=True):
    """A runner that may join."""

    name: Text = "runner"
    labels: Labels = {}


def routes(
    room: Callable[[], Room | None], features: Callable[[], Features | None]
) -> list[BaseRoute]:
    """Return the routes."""
    paths = _Paths(features)
    return [
        operations("/simulate", room, POST=paths.simulate),
        operations("/simulate/{session}/messages", room, GET=paths.conversation),
        operations("/packages", room, GET=paths.packages, POST=paths.upload),
        operations("/packages/{id}", room, GET=paths.package, DELETE=paths.remove_package),
        Route(f"{PREFIX}/packages/{{id}}/content", paths.fetch, methods=["GET"]),
        operations("/deployments", room, GET=paths.deployments, POST=paths.deploy),
        operations("/deployments/{id}", room, GET=paths.deployment, DELETE=paths.remove_deployment),
        operations("/deployments/{id}/start", room, POST=paths.start),
        operations("/deployments/{id}/stop", room, POST=paths.stop),
        operations("/deployments/{id}/restart", room, POST=paths.restart),
        operations("/deployments/{id}/log", room, GET=paths.log),
        operations("/runners", room, GET=paths.runners),
        operations("/runners/join-token", room, POST=paths.invite),
        operations("/runners/{id}", room, DELETE=paths.remove_runner),
    ]


class _Paths:
    """The handlers."""

    def __init__(self, features: Callable[[], Features | None]) -> None:
        self._features = features

    @property
    def _now(self) -> Features:
        features = self._features()
        if features is None:
            raise UnavailableError("the kenko adapter is not running")
        return features

    # Simulator

    async def simulate(self, call: Call) -> Answer:
        """Say something as a virtual user."""
        return Answer(await self._now.simulator.say(await shaped(call, Said)))

    async def conversation(self, call: Call) -> Answer:
        """List a conversation, oldest first."""
        limit, after = call.limit(), _number(call)
        messages = self._now.simulator.messages
        rows = await messages(call.part("session"), after=after, limit=limit + 1)
        items = [simulating.shown(row) for row in rows[:limit]]
        following = str(rows[limit - 1].seq) if len(rows) > limit else None
        return Answer({"items": items, "next": following})

    # Packages

    async def packages(self, call: Call) -> Answer:
        """List packages, newest first."""
        limit = call.limit()
        rows = await self._now.shelf.page(after=_place(call), limit=limit + 1)
        following = None
        if len(rows) > limit:
            following = f"{rows[limit - 1].created_us}-{rows[limit - 1].id}"
        return Answer({"items": [shelving.shown(row) for row in rows[:limit]], "next": following})

    async def package(self, call: Call) -> Answer:
        """Show a package."""
        return Answer(shelving.shown(await self._now.shelf.get(call.part("id"))))

    async def upload(self, call: Call) -> Answer:
        """Take in a package: the zip as the body, or as the field `file` of a form."""
        row = await self._now.shelf.put(_zip_of(call))
        await _audit(call, "kenko.package", row.id, row.sha256)
        return Answer(shelving.shown(row), 201)

    async def remove_package(self, call: Call) -> Answer:
        """Remove a package that is not deployed."""
        row = await self._now.shelf.get(call.part("id"))
        if self._now.deployments.uses(row.id):
            raise ConflictError(f"package {row.id!r} is deployed; remove its deployments first")
        await self._now.shelf.remove(row)
        await _audit(call, "kenko.package_removed", row.id)
        return Answer(status=204)

    async def fetch(self, request: Request) -> Response:
        """Give a package to a runner, which shows a signed URL and no token."""
        features, package_id = self._features(), request.path_params["id"]
        query = request.query_params
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if features is None or not features.shelf.may_fetch(package_id, expires, signature):
            said = "this URL was not signed here, or holds no more; ask to start again"
            return JSONResponse({"error": {"code": "bad_signature", "message": said}}, 403)
        row = await features.shelf.get(package_id)
        return FileResponse(features.shelf.path_of(row), media_type="application/zip")

    # Deployments

    async def deployments(self, call: Call) -> Answer:
        """List deployments, newest first."""
        limit, place = call.limit(), _place(call)
        rows = self._now.deployments.all()
        if place is not None:
            rows = [row for row in rows if (row.created_us, row.id) < place]
        following = None
        if len(rows) > limit:
            following = f"{rows[limit - 1].created_us}-{rows[limit - 1].id}"
        return Answer({"items": [deploying.shown(row) for row in rows[:limit]], "next": following})

    async def deployment(self, call: Call) -> Answer:
        """Show a deployment."""
        return Answer(deploying.shown(self._now.deployments.get(call.part("id"))))

    async def deploy(self, call: Call) -> Answer:
        """Put a package on a runner, and start it if that is wanted."""
        _may_run(call)
        wanted = await shaped(call, Deploy)
        package = await self._now.shelf.get(wanted.package_id)
        row = await self._now.deployments.deploy(package, wanted.runner_id, wanted.env)
        await _audit(call, "kenko.deploy", row.id, f"{package.id} on {row.runner_id}")
        if wanted.autostart:
            await self._now.deployments.start(row)
        return Answer(deploying.shown(row), 201)

    async def start(self, call: Call) -> Answer:
        """Let a deployment run."""
        _may_run(call)
        row = self._now.deployments.get(call.part("id"))
        await self._now.deployments.start(row)
        await _audit(call, "kenko.deployment_start", row.id)
        return Answer(deploying.shown(row))

    async def stop(self, call: Call) -> Answer:
        """Let a deployment end."""
        row = self._now.deployments.get(call.part("id"))
        await self._now.deployments.halt(row)
        await _audit(call, "kenko.deployment_stop", row.id)
        return Answer(deploying.shown(row))

    async def restart(self, call: Call) -> Answer:
        """Let a deployment end, and run again."""
        _may_run(call)
        row = self._now.deployments.get(call.part("id"))
        await self._now.deployments.halt(row)
        await self._now.deployments.start(row)
        await _audit(call, "kenko.deployment_restart", row.id)
        return Answer(deploying.shown(row))

    async def remove_deployment(self, call: Call) -> Answer:
        """Let a deployment end, and forget it."""
        row = self._now.deployments.get(call.part("id"))
        await self._now.deployments.remove(row)
        await _audit(call, "kenko.deployment_removed", row.id)
        return Answer(status=204)

    async def log(self, call: Call) -> Answer:
        """List the last lines of output, oldest first."""
        row = self._now.deployments.get(call.part("id"))
        limit = call.limit()
        lines = self._now.deployments.output(row, after=_number(call), limit=limit + 1)
        items = [
            {"number": line.number, "time": rfc3339(line.at_us), "text": line.text}
            for line in lines[:limit]
        ]
        following = str(lines[limit - 1].number) if len(lines) > limit else None
        return Answer({"items": items, "next": following})

    # Runners

    async def runners(self, call: Call) -> Answer:
        """List runners; the hub itself is one when it may run applications."""
        items = self._now.deployments.runners.shown()
        on: dict[str, int] = {}
        for row in self._now.deployments.all():
            on[row.runner_id] = on.get(row.runner_id, 0) + 1
        if not call.room.settings.runners:
            items = [one for one in items if one["id"] != LOCAL]
        counted = [{**one, "deployments": on.get(one["id"], 0)} for one in items]
        return Answer({"items": counted, "next": None})

    async def invite(self, call: Call) -> Answer:
        """Make a runner that may join; its token is shown this once."""
        _may_run(call)
        wanted = await shaped(call, Invitation)
        row, token = await self._now.deployments.runners.invite(wanted.name, wanted.labels)
        await _audit(call, "kenko.runner_invited", row.id, row.name)
        said: dict[str, Any] = {"id": row.id, "name": row.name, "labels": wanted.labels}
        return Answer({**said, "token": token}, 201)

    async def remove_runner(self, call: Call) -> Answer:
        """Forget a runner; its token admits nobody any more."""
        runner_id = call.part("id")
        await self._now.deployments.runners.remove(runner_id)
        await _audit(call, "kenko.runner_removed", runner_id)
        return Answer(status=204)


def _may_run(call: Call) -> None:
    if not call.room.settings.runners:
        raise RunnersOffError


def _number(call: Call) -> int:
    """Return the number after which a page begins; 0 for the first."""
    text = call.query.get("cursor", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # noqa: PLR2004
        raise InvalidError("?cursor= is not one that this list gave")
    return int(text)


def _place(call: Call) -> tuple[int, str] | None:
    """Return the time and id after which a page begins."""
    if "cursor" not in call.query:
        return None
    at, _, known = call.query["cursor"].partition("-")
    if not (at.isascii() and at.isdigit() and len(at) < 19 and known):  # noqa: PLR2004
        raise InvalidError("?cursor= is not one that this list gave")
    return int(at), known


async def _zip_of(call: Call) -> AsyncIterator[bytes]:
    """Yield a zip: the body, or the field `file` of a form.

    Raises:
        MalformedError: it is a form that cannot be read.
        InvalidError: it has no such field.
    """
    if not (call.header(b"content-type") or "").startswith(FORM.decode()):
        async for chunk in call.chunks():
            yield chunk
        return
    parser = MultiPartParser(Headers(scope=call.scope), _limited(call), max_files=1, max_fields=10)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise MalformedError(f"the form cannot be read: {error}") from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidError("the form has no file in its field 'file'")
        while chunk := await file.read(CHUNK):
            yield chunk
    finally:
        await form.close()


async def _limited(call: Call) -> AsyncGenerator[bytes, None]:
    """Yield the body of a form, and no more of it than a package may have, and a bit."""
    size = 0
    async for chunk in call.chunks():
        size += len(chunk)
        if size > MAX_PACKAGE + CHUNK:
            raise TooLargeError(what="the form", size_bytes=None, limit_bytes=MAX_PACKAGE)
        yield chunk


async def _audit(call: Call, act: str, target: str, detail: str = "") -> None:
    await call.room.hub.audit(call.principal.name, act, target, detail)
