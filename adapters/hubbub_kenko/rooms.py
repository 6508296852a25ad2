"""What the parts of the adapter work with while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubbub import Hub
    from hubbub_kenko.apps import Apps
    from hubbub_kenko.config import KenkoSettings
    from hubbub_kenko.desk import Desk
    from hubbub_kenko.history import History

__all__ = ["Room"]


@dataclass(frozen=True, slots=True)
class Room:
    """One running adapter.

    Attributes:
        apps: Who is registered now: list, start, pause, kick, and the seams for runners.
        history: Who was ever registered.
        desk: What clients ask of the hub; its `render` is the seam for messages with a `key`.
    """

    hub: Hub
    settings: KenkoSettings
    apps: Apps
    history: History
    desk: Desk
