"""The API describes itself, and what moves through the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.values import Route
from hubbub.web.asyncapi import asyncapi
from hubbub.web.calls import OPEN, Call, Operation, Reply, Spec
from hubbub.web.health import OPERATIONS as HEALTH
from hubbub.web.health import hub_version
from hubbub.web.mounting import Offer
from hubbub.web.openapi import openapi

__all__ = ["described"]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ANY_OBJECT = dict[str, Any]


class Document:
    """The description of the HTTP API as text, made anew when plugins or adapters come or go."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._operations = tuple(operations)
        self._offers: Sequence[Offer] | None = None
        self._text = b""

    def of(self, offers: Sequence[Offer]) -> bytes:
        """Return it with what plugins and adapters offer now."""
        if self._offers is not offers:
            kept = [
                one
                for owner in dict.fromkeys(offer.owner for offer in offers)
                for one in _describable(owner, offers)
            ]
            self._text = encode_json(openapi(self._operations, kept, version=hub_version()))
            self._offers = offers
        return self._text


def _describable(owner: str, offers: Iterable[Offer]) -> Sequence[Offer]:
    """Return what one plugin or adapter offers; nothing where its types cannot be described."""
    its = [offer for offer in offers if offer.owner == owner]
    try:
        encode_json(openapi((), its, version=""))
    except Exception as error:  # noqa: BLE001  # a plugin's mistake takes no description from the others
        log.warning("openapi.left_out", owner=owner, error=str(error)[:500])
        return ()
    return its


def _channels(routes: Sequence[Route], host: str) -> bytes:
    return encode_json(asyncapi(routes, version=hub_version(), host=host))


def described(core: Core, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return these operations and the two that describe them."""

    async def http(call: Call) -> Reply:
        return Reply(200, await asyncio.to_thread(document.of, call.scope["app"].offers))

    async def moving(call: Call) -> Reply:
        host = call.header(b"host") or f"{core.config.hub.host}:{core.config.hub.port}"
        routes = tuple(call.core.table)
        return Reply(200, await asyncio.to_thread(_channels, routes, host))

    spec = Spec(answers={200: ANY_OBJECT})
    both = (
        *operations,
        Operation("GET", "/api/v1/openapi.json", http, "This description", OPEN, spec),
        Operation(
            "GET",
            "/api/v1/asyncapi.json",
            moving,
            "Channels of the table as it is now, and the stream's frames",
            ("read",),
            spec,
        ),
    )
    document = Document((*HEALTH, *both))
    return both
