"""Listeners: sockets that serve an ASGI application, the one port's and an adapter's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from uvicorn import Config as UvicornConfig

from hubbub.errors import HubError

__all__ = ["HttpListener", "PortTakenError"]

BACKLOG: Final = 2048
MAX_WEBSOCKET_FRAME: Final = 1024 * 1024


class PortTakenError(HubError):
    """An address cannot be listened on."""

    code = "port_taken"

    def __init__(self, *, host: str, port: int, why: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: {why}; end what listens there, or choose another port"
        )


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the hub has its own."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class HttpListener:
    """One bound address, serving one application until it is stopped.

    Attributes:
        url: How to reach it; known once it is bound.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def bind(self) -> None:
        """Take the address, without answering yet.

        Raises:
            PortTakenError: it cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self._port))
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            why = error.strerror or str(error)
            raise PortTakenError(host=self._host, port=self._port, why=why) from error
        listening.setblocking(False)
        self._port = listening.getsockname()[1]
        self._socket = listening

    async def serve(self, app: Any, *, drain_timeout_s: float) -> None:  # noqa: ANN401  # ASGI
        """Begin to answer."""
        assert self._socket is not None
        config = UvicornConfig(
            app,
            loop="none",
            http="httptools",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=MAX_WEBSOCKET_FRAME,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(drain_timeout_s)),
        )
        server = self._server = _Server(config)
        self._serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        while not server.started and not self._serving.done():  # noqa: ASYNC110  # a flag
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Close the connections that are idle, wait for the others, and give the address free."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        elif self._socket is not None:
            self._socket.close()
