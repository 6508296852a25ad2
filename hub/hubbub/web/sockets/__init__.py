"""The hub's own endpoint protocol over WebSocket: `/api/v1/stream`, endpoints `stream.<name>`.

One connection is one endpoint with private routes for what it subscribed. A durable one keeps its
mailbox and its subscriptions while it is away.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import HubError
from hubbub.web.auth import authenticated
from hubbub.web.problems import problem_of, status_of
from hubbub.web.sockets.connection import Connection
from hubbub.web.sockets.options import Options

__all__ = ["StreamSockets", "refuse_handshake"]


class StreamSockets:
    """All stream connections of one hub; an ASGI application."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Connection] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        try:
            principal = authenticated(self._core, scope["headers"])
            options = Options.read(scope["query_string"])
            connection = Connection(self._core, principal, options, scope, send)
            before = self._by_name.get(options.name)
            if before is not None:
                before.make_way(principal)
            connection.begin()
            closed = self._core.router.sources.connect(
                principal.source, replacing=before is not None
            )
        except HubError as error:
            await refuse_handshake(self._core, scope, send, error)
            return
        self._by_name[options.name] = connection
        try:
            await connection.serve(receive)
        finally:
            closed()
            if self._by_name.get(options.name) is connection:
                del self._by_name[options.name]


async def refuse_handshake(core: Core, scope: Scope, send: Send, error: HubError) -> None:
    """Answer the handshake with a problem, where the server can, else close it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 4000 + status_of(error)})
        return
    problem, headers = problem_of(error, scope["headers"], core.ids.trace())
    headers.append((b"content-type", b"application/problem+json"))
    start = {"status": problem.status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": encode_json(problem)})
