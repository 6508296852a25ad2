"""The table `[plugins.system]` of hub.toml."""

from __future__ import annotations

from pydantic import Field

from hubbub.config import Duration, Settings

__all__ = ["SystemSettings"]


class SystemSettings(Settings):
    """How often the figures are told."""

    every: Duration = Field(
        default=2.0,
        ge=0.1,
        description="How often `hub.system` is published while somebody wants it.",
    )
