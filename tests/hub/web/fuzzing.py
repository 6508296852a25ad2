"""Requests made of the description of the API, sent to a running hub."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as _checks

from hubbub.testing import RecordingEndpoint
from tests.hub.web.conftest import ADMIN, FAST, Served, serving

ENDLESS = {"/api/v1/stream"}
MAY_FAIL = {503, 504}
"""What the hub says when it cannot now; every other 5xx is a mistake of its own."""

checks: Any = _checks
CONFORM: list[Any] = [
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.status_code_conformance,
]


@contextmanager
def living(data_dir: Path, toml: str = "") -> Generator[Served]:
    """Run a hub in a thread of its own, so that a client that waits can be used."""
    running: list[Served] = []
    begun, end = threading.Event(), threading.Event()

    async def run() -> None:
        async with serving(data_dir, FAST + toml) as served:
            served.core.attach(RecordingEndpoint("plugin.desk"))
            running.append(served)
            begun.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert begun.wait(20)
    yield running[0]
    end.set()
    thread.join(20)


def operations_of(live: Served) -> list[Any]:
    """Return all operations, as schemathesis reads them; one it cannot read is an error."""
    schema: Any = schemathesis.openapi.from_dict(fetch(live))
    return [result.ok() for result in schema.get_all_operations()]


def fetch(live: Served) -> dict[str, Any]:
    """Return the description."""
    import httpx2

    return cast("dict[str, Any]", httpx2.get(f"{live.url}/api/v1/openapi.json", timeout=30).json())


def shorten(body: Any) -> None:
    """Let no request wait long for its answer."""
    match body:
        case {"timeout": _}:
            body["timeout"] = "1s"
        case _:
            pass


def fuzz(
    live: Served, operations: Iterable[Any], mode: GenerationMode, *, examples: int
) -> Counter[int]:
    """Send so many requests to each operation, and count the statuses.

    Every answer has a status, type and shape that is described, and none is a mistake of the hub.
    """
    headers = {"authorization": f"Bearer {ADMIN}"}
    seen: Counter[int] = Counter()
    for operation in operations:
        if operation.path in ENDLESS:
            continue

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def sends(case: Any) -> None:
            shorten(case.body)
            response = case.call(base_url=live.url, headers=headers, timeout=10)
            seen[response.status_code] += 1
            assert response.status_code < 500 or response.status_code in MAY_FAIL, (
                case.as_curl_command()
            )
            case.validate_response(response, checks=CONFORM)

        with suppress(Unsatisfiable):  # nothing that could be wrong
            sends()
    return seen
