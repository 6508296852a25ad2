"""The paths of packages: uploaded, shown, removed, and fetched by runners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import FileResponse

from hubbub.errors import ConflictError, ForbiddenError, InvalidError, MalformedError
from hubbub.web import Call, Reply, limit_of
from hubbub_kenko.admin import specs
from hubbub_kenko.admin.features import Features, audit
from hubbub_kenko.admin.shelf import shown
from hubbub_kenko.operations import Path, place_of, placed
from hubbub_kenko.runner.packages import MAX_PACKAGE

__all__ = ["BadSignatureError", "package_paths"]

FORM: Final = "multipart/form-data"
CHUNK: Final = 256 * 1024

FORM_FILES: Final = 1
FORM_FIELDS: Final = 10
FORM_FIELD_BYTES: Final = 64 * 1024
"""What a form may have beside its file: it is not needed."""


class BadSignatureError(ForbiddenError):
    """A URL of a package that was not signed, or not for now."""

    code = "bad_signature"

    def __init__(self) -> None:
        super().__init__("this URL was not signed here, or holds no more; ask to start again")


def package_paths() -> Sequence[Path[Features]]:
    """Return the paths."""
    one = "/packages/{id}"
    return [
        Path("GET", "/packages", _packages, "Packages, newest first", specs.PACKAGES),
        Path("POST", "/packages", _upload, "Upload a package", specs.UPLOAD),
        Path("GET", one, _package, "A package", specs.PACKAGE),
        Path("DELETE", one, _remove_package, "Remove a package", specs.REMOVE_PACKAGE),
        Path("GET", f"{one}/content", _fetch, "Its zip", specs.CONTENT, is_signed=True),
    ]


async def _packages(now: Features, call: Call) -> Reply:
    """List packages, newest first."""
    limit = limit_of(call)
    rows = await now.shelf.page(after=place_of(call), limit=limit + 1)
    return placed(rows, limit, lambda row: (row.created_us, row.id), shown)


async def _package(now: Features, call: Call) -> Reply:
    """Show a package."""
    return Reply(200, shown(await now.shelf.get(call.params["id"])))


async def _upload(now: Features, call: Call) -> Reply:
    """Take in a package: the zip as the body, or as the field `file` of a form."""
    row = await now.shelf.put(_zip_of(call))
    await audit(now, call, "kenko.package", row.id, row.sha256)
    return Reply(201, shown(row))


async def _remove_package(now: Features, call: Call) -> Reply:
    """Remove a package that is not deployed."""
    row = await now.shelf.get(call.params["id"])
    if now.deployments.uses(row.id):
        raise ConflictError(f"package {row.id!r} is deployed; remove its deployments first")
    await now.shelf.remove(row)
    await audit(now, call, "kenko.package_removed", row.id)
    return Reply(204)


async def _fetch(now: Features, call: Call) -> None:
    """Give a package to a runner, which shows a signed URL and no token."""
    shelf, package_id = now.shelf, call.params["id"]
    expires, signature = call.argument("expires") or "", call.argument("signature") or ""
    if not shelf.may_fetch(package_id, expires, signature):
        call.core.auth_failures.failed("package_url", call.peer)
        raise BadSignatureError
    row = await shelf.get(package_id)
    file = FileResponse(shelf.path_of(row), media_type="application/zip")
    await file(call.scope, call.receive, call.send)


async def _zip_of(call: Call) -> AsyncIterator[bytes]:
    """Yield a zip: the body, or the field `file` of a form.

    Raises:
        MalformedError: it is a form that cannot be read.
        InvalidError: it has no such field.
    """
    if not (call.header(b"content-type") or "").startswith(FORM):
        async for chunk in call.chunks(MAX_PACKAGE, what="the package"):
            yield chunk
        return
    form_bytes = call.chunks(MAX_PACKAGE + CHUNK, what="the form")
    parser = MultiPartParser(
        Headers(scope=call.scope),
        form_bytes,
        max_files=FORM_FILES,
        max_fields=FORM_FIELDS,
        max_part_size=FORM_FIELD_BYTES,
    )
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
