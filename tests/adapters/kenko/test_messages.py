"""Messages both ways: to applications, their answers, what they say themselves, tasks."""

from __future__ import annotations

from hubbub.cli.client import LiveHub  # noqa: F401  # pragma: no cover
