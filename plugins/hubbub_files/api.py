"""Files over HTTP, below `/api/files`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from starlette.routing import BaseRoute

from hubbub.errors import InvalidError, MalformedError, NotFoundError
from hubbub.web import (
    Call,
    Manners,
    Operation,
    Reply,
    limit_of,
    operation_routes,
    page,
    text_after,
)
from hubbub_files import shapes
from hubbub_files.errors import ReadOnlyError
from hubbub_files.folders import Entry
from hubbub_files.shapes import Content, Move, NewFolder, RootView, entry_view
from hubbub_files.shown import Shown

__all__ = ["SCOPE_KEY", "routes"]

SCOPE_KEY: Final = "hubbub.files"
"""Where an adapter that serves these paths under its own says how far, in the scope of a request:
`{"writable": bool, "roots": [names]}`, None or nothing for what the settings say."""

MAX_JSON: Final = 6
"""Bytes that one byte of a file may take as JSON."""


class _Api:
    """The handlers; `shown` gives what is there now."""

    def __init__(self, shown: Callable[[], Shown]) -> None:
        self._shown = shown

    async def listed(self, call: Call) -> Reply:
        """List the roots, or a folder."""
        path = call.argument("path")
        folders = self._shown().folders
        if path is None:
            writable, shown = self._writable(call), _roots(call)
            roots = [
                RootView(name, name, "root", writable)
                for name in folders.roots
                if shown is None or name in shown
            ]
            return page(roots, None)
        _check_root(call, path)
        limit, after = limit_of(call), text_after(call)
        entries = await asyncio.to_thread(folders.listed, path)
        if after is not None:
            entries = [entry for entry in entries if _order(entry) > after]
        following = _order(entries[limit - 1]) if len(entries) > limit else None
        places = [_order(entry) for entry in entries[:limit]]
        return page(map(entry_view, entries[:limit]), following, places=places)

    async def content(self, call: Call) -> Reply:
        """Return a file as it is; `?offset=&length=` for a part of it."""
        offset, length = _number(call, "offset") or 0, _number(call, "length")
        read = self._shown().folders.read
        body = await asyncio.to_thread(read, _path(call), offset=offset, length=length)
        kind = b"text/plain; charset=utf-8" if _is_text(body) else b"application/octet-stream"
        return Reply(200, body, kind, [(b"x-content-type-options", b"nosniff")])

    async def write(self, call: Call) -> Reply:
        """Write a whole file: the body, or `{"path","content"}` where the query names no path."""
        shown = self._changeable(call)
        path = call.argument("path")
        limit = shown.max_bytes * (1 if path else MAX_JSON)
        setting = "plugins.files.max_file"
        body = await call.body_within(limit, setting=setting)
        if path is None:
            wanted = _decoded(body)
            path, body = wanted.path, wanted.content.encode()
        _check_root(call, path)
        entry, is_new = await asyncio.to_thread(shown.folders.write, path, body)
        await _audit(call, "files.write", entry.path, f"{len(body)} bytes")
        return Reply(201 if is_new else 200, entry_view(entry))

    async def make(self, call: Call) -> Reply:
        """Make a folder."""
        shown = self._changeable(call)
        path = (await call.json(NewFolder)).path
        _check_root(call, path)
        entry = await asyncio.to_thread(shown.folders.make, path)
        await _audit(call, "files.mkdir", entry.path)
        return Reply(201, entry_view(entry))

    async def move(self, call: Call) -> Reply:
        """Move something to where nothing is."""
        shown = self._changeable(call)
        wanted = await call.json(Move)
        _check_root(call, wanted.source)
        _check_root(call, wanted.target)
        entry = await asyncio.to_thread(shown.folders.move, wanted.source, wanted.target)
        await _audit(call, "files.move", wanted.source, entry.path)
        return Reply(200, entry_view(entry))

    async def remove(self, call: Call) -> Reply:
        """Remove a file or an empty folder."""
        shown = self._changeable(call)
        path = _path(call)
        await asyncio.to_thread(shown.folders.remove, path)
        await _audit(call, "files.delete", path)
        return Reply(204)

    def _writable(self, call: Call) -> bool:
        said: bool | None = call.scope.get(SCOPE_KEY, {}).get("writable")
        return self._shown().writable if said is None else said

    def _changeable(self, call: Call) -> Shown:
        """Return what is shown, if it may be changed.

        Raises:
            ReadOnlyError: it may not.
        """
        if not self._writable(call):
            raise ReadOnlyError
        return self._shown()


def routes(shown: Callable[[], Shown]) -> list[BaseRoute]:
    """Return the paths. Files are for administrators only, also to read."""
    api = _Api(shown)
    content = "/api/files/content"
    operations = [
        Operation("GET", "/api/files", api.listed, "Roots, or a folder", spec=shapes.LIST),
        Operation("DELETE", "/api/files", api.remove, "Remove a file", spec=shapes.REMOVE),
        Operation("GET", content, api.content, "A file", spec=shapes.READ),
        Operation("PUT", content, api.write, "Write a file", spec=shapes.WRITE),
        Operation("POST", "/api/files/mkdir", api.make, "Make a folder", spec=shapes.MAKE),
        Operation("POST", "/api/files/move", api.move, "Move a file", spec=shapes.MOVE),
    ]
    return [*operation_routes(operations, Manners(ready=shown))]


def _order(entry: Entry) -> str:
    """Return what orders a listing: folders first, then by name."""
    return f"{int(entry.kind != 'folder')}{entry.name}"


def _path(call: Call) -> str:
    path = call.argument("path")
    if path is None:
        raise InvalidError("?path= is missing; name a file as <root>/<folder>/<file>")
    _check_root(call, path)
    return path


def _roots(call: Call) -> Sequence[str] | None:
    roots: Sequence[str] | None = call.scope.get(SCOPE_KEY, {}).get("roots")
    return roots


def _check_root(call: Call, path: str) -> None:
    """Refuse a root that whoever serves this path does not show."""
    roots = _roots(call)
    name = path.split("/", 1)[0]
    if roots is not None and name not in roots:
        raise NotFoundError(f"there is no root {name[:64]!r} here; there are {', '.join(roots)}")


def _number(call: Call, name: str) -> int | None:
    text = call.argument(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**63))):
        raise InvalidError(f"{name} is {text[:20]!r}; it must be a number of bytes")
    return int(text)


def _decoded(body: bytes) -> Content:
    try:
        return msgspec.json.decode(body, type=Content)
    except msgspec.ValidationError as error:
        said = f"name the file: ?path=, or a body with path and content; {error}"
        raise InvalidError(said) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise MalformedError(f"name the file by ?path=; the body is not JSON: {error}") from None


def _is_text(body: bytes) -> bool:
    try:
        return b"\0" not in body and bool(body.decode() or True)
    except UnicodeDecodeError:
        return False


async def _audit(call: Call, act: str, target: str, detail: str = "") -> None:
    await call.core.audit(call.principal.name, act, target, detail)
