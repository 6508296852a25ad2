"""Statistics: what went through the hub each minute, kept for three months."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubbub import hookimpl

if TYPE_CHECKING:
    from sqlmodel import SQLModel
    from starlette.routing import BaseRoute

    from hubbub import Hub
    from hubbub_statistics.keeper import Keeper

__all__ = ["plugin"]


class Statistics:
    """The plugin `stat`."""

    def __init__(self) -> None:
        self._keeper: Keeper | None = None

    @hookimpl
    def tables(self) -> Sequence[type[SQLModel]]:
        """Give the one table."""
        from hubbub_statistics.tables import StatBucketRow  # noqa: PLC0415  # only where a hub runs

        return [StatBucketRow]

    @hookimpl
    def startup(self, hub: Hub) -> None:
        """Begin to count."""
        from hubbub_statistics.config import StatSettings  # noqa: PLC0415
        from hubbub_statistics.keeper import Keeper  # noqa: PLC0415

        self._keeper = Keeper(hub, hub.plugin_settings("stat", StatSettings))

    @hookimpl
    async def shutdown(self) -> None:
        """Keep what was counted last."""
        if self._keeper is not None:
            await self._keeper.stop()
            self._keeper = None

    @hookimpl
    def http_routes(self) -> Sequence[BaseRoute]:
        """Give the API."""
        from hubbub_statistics.api import routes  # noqa: PLC0415  # only where a hub serves

        return routes(lambda: self._keeper)


plugin = Statistics()
