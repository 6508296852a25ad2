"""OctoHub's shell: builds its rooms, starts and stops them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from hubbub import Hub
from hubbub.config import Settings
from hubbub_octohub.config import OctohubSettings

__all__ = ["OctohubAdapter"]


class OctohubAdapter:
    """OctoHub nodes and users."""

    name = "octohub"
    Config: type[Settings] = OctohubSettings

    def http_routes(self) -> Sequence[BaseRoute]:
        """Return the endpoints."""
        return []

    async def start(self, hub: Hub) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""
