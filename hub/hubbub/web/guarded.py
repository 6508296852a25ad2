"""An application of an adapter behind the rule of `request_trust`, for `hub.listen_http`."""

from __future__ import annotations

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.core import Core
from hubbub.errors import HubError
from hubbub.web.calls import send_problem
from hubbub.web.decoding import check_path
from hubbub.web.request_guard import OriginList, RequestGuard
from hubbub.web.sockets import refuse_handshake

__all__ = ["guarded"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def guarded(core: Core, name: str, app: ASGIApp, loopback: bool) -> ASGIApp:
    """Return an application that serves what may come in, as on the adapter's `listen`.

    Links on pages of other sites lead nowhere there: what a GET does, only the adapter knows.

    Args:
        loopback: Whether its listener is bound to loopback (`HttpListener.is_loopback`).
    """

    def origins_at(scope: Scope) -> OriginList | None:
        del scope
        settings = next((one.settings for one in core.adapters if one.name == name), None)
        if settings is None or settings.ORIGINS_KEY is None:
            return None
        return f"adapters.{name}.{settings.ORIGINS_KEY}", settings.web_origins

    guard = RequestGuard(
        core, loopback=loopback, origins_at=origins_at, is_linkable_at=lambda _: False
    )

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        verdict = guard.judge(scope)
        if not verdict.is_plain:
            admitted = await guard.admit(verdict, scope, receive, send)
            if admitted is None:
                return
            send = admitted
        try:
            check_path(scope)
        except HubError as error:
            refuse = refuse_handshake if scope["type"] == "websocket" else send_problem
            await refuse(core, scope, send, error)
            return
        try:
            await app(scope, receive, send)
        except ClientDisconnect:
            log.debug("web.client_gone", path=scope["path"][:200])

    return serve
