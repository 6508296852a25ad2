"""The hub's own endpoint protocol over WebSocket: `/api/v1/stream`, endpoints `stream.<name>`.

One connection is one endpoint with private routes for what it subscribed. A durable one keeps its
mailbox and its subscriptions while it is away.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.errors import HubError
from hubbub.rights import check_accepts
from hubbub.web.api.stream import patterns_for
from hubbub.web.auth import authenticated
from hubbub.web.problems import problem_of, status_of
from hubbub.web.sockets.connection import Connection
from hubbub.web.sockets.names import StreamName
from hubbub.web.sockets.options import Options

__all__ = ["StreamSockets", "refuse_handshake"]


class StreamSockets:
    """All stream connections of one hub; an ASGI application."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        try:
            principal = authenticated(self._core, scope)
            options = Options.read(scope["query_string"])
            check_accepts(principal, options.accepts, options.task_types)
            if options.subjects:
                patterns_for(principal, options.subjects)
            name = StreamName(self._core, principal, options.name)
            await name.check_all()
            name.check()  # from here to `open` nobody else has a turn
            connection = Connection(self._core, principal, options, name, scope, send)
            connection.open()
        except HubError as error:
            await refuse_handshake(self._core, scope, send, error)
            return
        await connection.serve(receive)


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
