"""Which plugin a stack is in, by the files its calls are of."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["BUNDLED", "plugin_in"]

BUNDLED: Final = "hubbub"
"""Distribution of the plugins that come with the hub."""

GROUP: Final = "hubbub"
"""Group of the entry points of plugins."""


def plugin_in(files: Iterable[str]) -> str | None:
    """Return the third-party plugin that is at work in a stack; None where none is.

    The innermost call decides that is of a plugin or of the hub itself. A plugin that waits for
    the hub is not the one that holds the loop; a library that a plugin calls is the plugin's.

    Args:
        files: The files of a stack's calls, the innermost first.
    """
    roots = [(str(Path(__file__).parent), "")]
    for point in entry_points(group=GROUP):
        bundled = point.dist is not None and point.dist.name == BUNDLED
        roots += [(root, "" if bundled else point.name) for root in _roots(point)]
    roots.sort(key=lambda root: len(root[0]), reverse=True)
    for file in files:
        for root, plugin in roots:
            if file == root or file.startswith(root + os.sep):
                return plugin or None
    return None


def _roots(point: EntryPoint) -> Iterator[str]:
    """Give the files and folders of a plugin's code, without importing it."""
    package, *inner = point.module.split(".")
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        if spec.origin is not None:
            yield spec.origin
        return
    for folder in spec.submodule_search_locations:
        yield folder
        if inner:  # two plugins of one package are told apart by their own modules
            yield str(Path(folder, *inner))
            yield str(Path(folder, *inner).with_suffix(".py"))
