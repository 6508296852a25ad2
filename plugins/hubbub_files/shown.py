"""What is shown, by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hubbub import Hub
from hubbub_files.config import FilesSettings
from hubbub_files.folders import Folders
from hubbub_files.places import Roots
from hubbub_files.privacy import Privacy

__all__ = ["Shown", "shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """The folders, and how far they may be changed."""

    folders: Folders
    writable: bool
    max_bytes: int


def shown(hub: Hub) -> Shown:
    """Return what `[plugins.files]` says."""
    settings = hub.plugin_settings("files", FilesSettings)
    data_dir = hub.data_dir.as_posix()
    roots = {
        name: Path(folder.replace("{data_dir}", data_dir))
        for name, folder in settings.roots.items()
    }
    privacy = Privacy(hub.private_files, settings.hidden)
    folders = Folders(Roots(roots), privacy, max_bytes=settings.max_file)
    return Shown(folders, settings.writable, settings.max_file)
