"""The table `[plugins.stat]` of hub.toml."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from hubbub.config import Duration, Settings

__all__ = ["StatSettings"]

_DAY_S: Final = 86_400.0


class StatSettings(Settings):
    """How long statistics are kept."""

    kept: Duration = Field(
        default=90 * _DAY_S, ge=3600, description="How long the figures of each minute are kept."
    )
    users_kept: Duration = Field(
        default=2 * _DAY_S,
        ge=3600,
        description="How long is remembered who spoke in which minute, as a hash: so far back "
        "active users are counted exactly over more than a minute.",
    )
