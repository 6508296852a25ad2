"""Files of the hub over HTTP: a few folders, read-only unless allowed, never a secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubbub import hookimpl
from hubbub.errors import UnavailableError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from hubbub import Hub
    from hubbub_files.shown import Shown

__all__ = ["plugin"]


class Files:
    """The plugin `files`."""

    def __init__(self) -> None:
        self._shown: Shown | None = None

    @hookimpl
    def startup(self, hub: Hub) -> None:
        """Read which folders are shown."""
        from hubbub_files.shown import shown  # noqa: PLC0415  # only where a hub runs

        self._shown = shown(hub)

    @hookimpl
    def shutdown(self) -> None:
        """Show nothing any more."""
        self._shown = None

    @hookimpl
    def http_routes(self) -> Sequence[BaseRoute]:
        """Give the API."""
        from hubbub_files.api import routes  # noqa: PLC0415  # only where a hub serves

        return routes(self._now)

    def _now(self) -> Shown:
        if self._shown is None:
            raise UnavailableError("the plugin files has ended")
        return self._shown


plugin = Files()
