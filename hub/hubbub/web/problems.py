"""Errors as `application/problem+json` (RFC 9457), with a stable `type` and the trace's id."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from hubbub.errors import (
    ConfigError,
    ConflictError,
    DeadlineError,
    ForbiddenError,
    ForeignOriginError,
    HubError,
    InvalidError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownHostError,
)
from hubbub.observe.tracing import parse_traceparent
from hubbub.web.bodies import UnreadBodyError
from hubbub.web.decoding import traceparent

__all__ = [
    "InternalError",
    "MethodError",
    "Problem",
    "problem_of",
    "status_of",
    "type_of",
]

Headers = Iterable[tuple[bytes, bytes]]

STATUS: Final[dict[type[HubError], int]] = {
    MalformedError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    ForeignOriginError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    TooLargeError: 413,
    UnknownHostError: 421,
    InvalidError: 422,
    ConfigError: 422,
    RateLimitedError: 429,
    UnavailableError: 503,
    DeadlineError: 504,
}

RETRY_S: Final = 1
"""Seconds to wait after a 503 that does not say how long it will last."""

TYPE_PREFIX: Final = "tag:hubbub,2026:"


class MethodError(HubError):
    """The path exists, but not for this HTTP method."""

    code = "method_not_allowed"

    def __init__(self, *, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"this path has no {method}; it has {self.allowed}")


class InternalError(HubError):
    """The hub made a mistake; its log says more."""

    code = "internal"


STATUS[MethodError] = 405


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem, as it goes out.

    Attributes:
        index: Place of the bad member in a batch.
        problems: Each mistake of a configuration, a line each.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str
    index: int | None = None
    problems: list[str] | None = None


def status_of(error: HubError) -> int:
    """Return the HTTP status of an error: that of its nearest category."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def type_of(error: HubError) -> str:
    """Return the stable `type` of an error."""
    return f"{TYPE_PREFIX}{error.code}"


def problem_of(
    error: HubError, headers: Headers, new_trace: str
) -> tuple[Problem, list[tuple[bytes, bytes]]]:
    """Return an error as a problem, and the headers that go with it.

    Args:
        headers: Those of the request; its `traceparent` names the trace.
        new_trace: Id of the trace when the request names none.
    """
    parent = parse_traceparent(traceparent(headers))
    status = status_of(error)
    problem = Problem(
        type=type_of(error),
        title=(type(error).__doc__ or error.code).split("\n", 1)[0].rstrip("."),
        status=status,
        detail=error.message,
        code=error.code,
        trace_id=parent[0] if parent else new_trace,
        index=error.index if isinstance(error, InvalidError) else None,
        problems=error.problems if isinstance(error, ConfigError) else None,
    )
    return problem, _headers_of(error, status)


def _headers_of(error: HubError, status: int) -> list[tuple[bytes, bytes]]:
    more: list[tuple[bytes, bytes]] = []
    if status == 401:  # noqa: PLR2004  # RFC 9110: it comes with a challenge
        more.append((b"www-authenticate", b"Bearer"))
    if status in (429, 503):
        after: Any = getattr(error, "after_s", RETRY_S)
        more.append((b"retry-after", b"%d" % max(1, math.ceil(min(after, 3600)))))
    if isinstance(error, MethodError):
        more.append((b"allow", error.allowed.encode()))
    if isinstance(error, UnreadBodyError):
        more.append((b"connection", b"close"))
    return more
