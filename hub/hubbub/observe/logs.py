"""Structured logs: one event a line, as JSON for machines or as text for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

from hubbub.observe.logbook import LogBook

__all__ = ["configure_logs"]

LogFormat = Literal["auto", "json", "console"]


def configure_logs(
    level: str = "info", log_format: LogFormat = "auto", book: LogBook | None = None
) -> None:
    """Send all logs, those of libraries too, to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `auto` is text on a terminal and JSON elsewhere.
        book: Gets all lines too, as JSON.
    """
    as_text = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    as_json = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Without the values of local variables: they may be secrets.
    as_lines = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(shared, [as_lines] if as_text else as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if book is not None:
        book.setFormatter(_formatter(shared, as_json))
        root.addHandler(book)
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "uvicorn.error", "httpx2", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _formatter(shared: list[Any], rendering: list[Any]) -> logging.Formatter:
    """Return what renders a record, of the hub or of a library."""
    first = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[first, *rendering]
    )
