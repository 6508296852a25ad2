"""Every error has a status, a stable type and a heading in docs/errors.md, and every path too."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubbub
from hubbub.core import Core
from hubbub.errors import (
    ConflictError,
    DrainingError,
    HubError,
    IdReusedError,
    InvalidError,
    KeyReusedError,
    MailboxFullError,
    MemoryFullError,
    RateLimitedError,
    SubjectError,
    TooLargeError,
    UnauthorizedError,
)
from hubbub.web import health
from hubbub.web.api import all_operations
from hubbub.web.problems import problem_of, status_of

DOCS = Path(__file__).parents[3] / "docs"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def family(root: type[HubError]) -> Iterator[type[HubError]]:
    """Yield an error and all below it."""
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def test_every_error_code_has_a_heading() -> None:
    """And no heading is of a code that is gone."""
    for module in pkgutil.walk_packages(hubbub.__path__, "hubbub."):
        if not module.name.startswith(("hubbub.store.migrations", "hubbub.cli.__main__")):
            importlib.import_module(module.name)
    codes = {error.code for error in family(HubError) if error.__module__.startswith("hubbub.")}
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert codes <= headings
    assert headings <= codes


def test_every_path_is_described(core: Core) -> None:
    """In docs/http-api.md, up to the part that is filled in."""
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    for operation in (*all_operations(core), *health.OPERATIONS):
        fixed = operation.path.split("{")[0]
        assert fixed in text, operation.path
        assert operation.says


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (HubError("x"), 500),
        (UnauthorizedError("x"), 401),
        (ConflictError("x"), 409),
        (IdReusedError(envelope_id="x"), 409),
        (TooLargeError(what="x", size_bytes=2, limit_bytes=1, setting="y"), 413),
        (InvalidError("x"), 422),
        (SubjectError("x"), 422),
        (KeyReusedError(), 422),
        (RateLimitedError(what="x", after_s=0.2, setting="y"), 429),
        (DrainingError(), 503),
        (MailboxFullError(mailbox="x", limit=1), 503),
        (MemoryFullError(limit_bytes=1), 503),
    ],
)
def test_an_error_has_the_status_of_its_category(error: HubError, status: int) -> None:
    """The problem says so too."""
    problem, headers = problem_of(error, [], TRACE)
    assert status_of(error) == problem.status == status
    assert problem.type == f"tag:hubbub,2026:{error.code}"
    assert problem.trace_id == TRACE
    assert (b"retry-after" in dict(headers)) is (status in (429, 503))
    assert (b"www-authenticate" in dict(headers)) is (status == 401)
