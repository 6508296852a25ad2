"""What the hub and its plugins have under paths of their own, below `/api/kenko`.

A face hands the request on to the hub's own path, with its token and its body, and writes errors
as this API does. Who calls is looked at there, once; so are limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from hubbub.envelope import encode_json
from hubbub.errors import InvalidError, MalformedError
from hubbub.web import parse_query, status_of
from hubbub_kenko.admin.shapes import as_hops, as_statistics
from hubbub_kenko.operations import PREFIX, refusal_of
from hubbub_kenko.rooms import Room

__all__ = ["routes"]

PROBLEM: Final = b"application/problem+json"
OF_CALLERS: Final = frozenset({"unauthorized", "forbidden"})
"""Problems of who calls stay as they are on every path of the hub."""

OK: Final = 200

Change = Callable[[Any], object]
"""Makes this API's answer of the hub's."""

_SAME: Final = {
    "/files": "/api/files",
    "/files/content": "/api/files/content",
    "/files/mkdir": "/api/files/mkdir",
    "/files/move": "/api/files/move",
    "/i18n/locales": "/api/i18n/locales",
    "/i18n/render": "/api/i18n/render",
    "/i18n/{name}": "/api/i18n/{name}",
    "/system": "/api/system",
    "/stats": "/api/stats",
    "/traces": "/api/v1/traces",
    "/traces/{name}": "/api/v1/traces/{name}",
    "/db/tables": "/api/v1/database/tables",
    "/db/prune": "/api/v1/database/prune",
    "/db/vacuum": "/api/v1/database/vacuum",
    "/db/backup": "/api/v1/database/backup",
    "/db/backups": "/api/v1/database/backups",
    "/db/migrations": "/api/v1/database/migrations",
    "/logs": "/api/v1/logs",
    "/logs/level": "/api/v1/logs/level",
}
"""Paths of this API, and whose they are."""

_CHANGED: Final[Mapping[str, Change]] = {"/stats": as_statistics, "/traces/{name}": as_hops}


def routes(room: Callable[[], Room | None]) -> list[BaseRoute]:
    """Return the routes."""
    return [
        Route(PREFIX + path, _Face(room, path, target, _CHANGED.get(path)))
        for path, target in _SAME.items()
    ]


class _Face:
    """One path."""

    def __init__(
        self, room: Callable[[], Room | None], path: str, target: str, change: Change | None
    ) -> None:
        self._room = room
        self._path = path
        self._target = target
        self._change = change

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        room = self._room()
        sent = _Rewriting(send, self._change if scope["method"] == "GET" else None)
        if room is None:
            await sent.refuse(503, "unavailable", "the adapter kenko is not running")
            return
        path = self._target.replace("{name}", scope.get("path_params", {}).get("name", ""))
        inner: dict[str, Any] = {
            **scope,
            "path": path,
            "raw_path": quote(path).encode(),
            "path_params": {},
        }
        if self._path == "/traces":
            try:
                inner["query_string"] = await _of_apps(room, scope["query_string"])
            except (InvalidError, MalformedError) as error:
                await sent.refuse(status_of(error), error.code, error.message)
                return
        if self._path.startswith("/files"):
            settings = room.settings
            far = {"writable": settings.files_writable, "roots": settings.files_roots}
            inner["hubbub.files"] = far
        await room.hub.serve(inner, receive, sent)


async def _of_apps(room: Room, query: bytes) -> bytes:
    """Return a query that names applications by their endpoints: `?app=` is an id or a name."""
    pairs = parse_query(query)
    names = [value for name, value in pairs if name == "app" and value]
    if not names:
        return query
    wanted = [pair for pair in pairs if pair[0] != "app"]
    for name in names:
        ids = await room.history.ids_of(name)
        wanted += [("endpoint", f"kenko.app.{app_id}") for app_id in ids or [_NOBODY]]
    return urlencode(wanted).encode()


_NOBODY: Final = "nobody"


class _Rewriting:
    """Takes the hub's answer; a problem, or one that is changed, is written anew."""

    def __init__(self, send: Send, change: Change | None) -> None:
        self._send = send
        self._change = change
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name == b"content-type"]
            if PROBLEM in kinds or (self._change is not None and message["status"] == OK):
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._rewritten(self._start)

    async def _rewritten(self, start: Message) -> None:
        said: Any = msgspec.json.decode(self._body) if self._body else {}
        status = start["status"]
        if status == OK and self._change is not None:
            await self._write(start, encode_json(self._change(said)), b"application/json")
        elif said.get("code") in OF_CALLERS:
            await self._write(start, self._body, PROBLEM)
        else:
            refusal = refusal_of(said.get("code", "error"), said.get("detail", ""))
            await self._write(start, encode_json(refusal), b"application/json")

    async def _write(self, start: Message, body: bytes, kind: bytes) -> None:
        kept = [
            (name, value)
            for name, value in start["headers"]
            if name not in (b"content-type", b"content-length")
        ]
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *kept]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, status: int, code: str, message: str) -> None:
        """Write an error of this API's own."""
        body = encode_json(refusal_of(code, message))
        start: Message = {"type": "http.response.start", "status": status, "headers": []}
        await self._write(start, body, b"application/json")
