"""The API describes itself, and what moves through the hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hubbub.core import Core
from hubbub.envelope import encode_json
from hubbub.web.asyncapi import asyncapi
from hubbub.web.calls import OPEN, Call, Operation, Reply, Spec
from hubbub.web.health import OPERATIONS as HEALTH
from hubbub.web.health import hub_version
from hubbub.web.openapi import openapi

__all__ = ["described"]

ANY_OBJECT = dict[str, Any]


def described(core: Core, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return these operations and the two that describe them."""

    @lru_cache(maxsize=1)
    def document() -> bytes:
        return encode_json(openapi((*HEALTH, *both), version=hub_version()))

    async def http(call: Call) -> Reply:
        del call
        return Reply(200, document())

    async def moving(call: Call) -> Reply:
        host = call.header(b"host") or f"{core.config.hub.host}:{core.config.hub.port}"
        return Reply(200, asyncapi(call.core.table, version=hub_version(), host=host))

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
    return both
