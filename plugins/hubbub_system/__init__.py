"""Figures of the machine and of the hub's process: over HTTP, and live while somebody watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubbub import hookimpl

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from hubbub import Hub
    from hubbub_system.ticking import Ticking

__all__ = ["plugin"]


class System:
    """The plugin `system`."""

    def __init__(self) -> None:
        self._ticking: Ticking | None = None

    @hookimpl
    def startup(self, hub: Hub) -> None:
        """Begin to tell."""
        from hubbub_system.config import SystemSettings  # noqa: PLC0415  # only where a hub runs
        from hubbub_system.ticking import Ticking  # noqa: PLC0415

        settings = hub.plugin_settings("system", SystemSettings)
        self._ticking = Ticking(hub, settings.every)

    @hookimpl
    def shutdown(self) -> None:
        """End."""
        if self._ticking is not None:
            self._ticking.stop()

    @hookimpl
    def http_routes(self) -> Sequence[BaseRoute]:
        """Give the API."""
        from hubbub_system.api import routes  # noqa: PLC0415  # only where a hub serves

        return routes()


plugin = System()
