"""Transforms: what a route does to an envelope on its way to an endpoint.

A plugin offers kinds; a route names one with an argument, `mask:data.phone`, or several that are
run one after the other, `lua:trim.lua | mask:data.phone`. They run before conversion, on a copy
for this delivery, at every attempt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hubbub.envelope import Envelope
from hubbub.errors import PluginError, RouteError

__all__ = ["CACHE_LIMIT", "MAX_STEPS", "Transform", "Transformed", "Transforms", "steps_of"]

MAX_STEPS: Final = 8
"""Transforms of one route."""

CACHE_LIMIT: Final = 1024
"""Transforms that are ready; routes over the API come and go, so it cannot grow for ever."""

Transformed = Callable[[Envelope], Envelope | None]
"""Gives the envelope to go on with, or None for one that shall not go on: `filtered: transform`."""

Fenced = Callable[[Transformed], Transformed]

_KIND: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Transform:
    """A kind of transform.

    Attributes:
        kind: What stands before the colon.
        make: Called with what stands behind it when a route is put in; gives what is called with
            each envelope. Whatever it raises refuses the route. What it gives may raise `Reject`
            for an envelope that can never go on, which is no fault of the plugin.
    """

    kind: str
    make: Callable[[str], Transformed]


@dataclass(frozen=True, slots=True)
class _Registered:
    plugin: str
    transform: Transform
    fenced: Fenced


class Transforms:
    """All kinds of transforms, and those that are ready."""

    def __init__(self, *, incomplete: Callable[[], bool] = lambda: False) -> None:
        """Begin with none.

        Args:
            incomplete: Whether a plugin is off that might have a kind nobody knows. Then routes
                with such a kind stay, and what they take is `dead: no_transform`.
        """
        self._incomplete = incomplete
        self._kinds: dict[str, _Registered] = {}
        self._ready: dict[str, Transformed] = {}

    def add(self, transform: Transform, *, plugin: str, fenced: Fenced = lambda made: made) -> None:
        """Register a kind.

        Raises:
            PluginError: its name cannot be written in a route, or is taken.
        """
        if not _KIND.fullmatch(transform.kind):
            raise PluginError(
                f"plugin {plugin!r} has a transform {transform.kind!r}; "
                "its name must be letters, digits, '-' and '_'"
            )
        there = self._kinds.get(transform.kind)
        if there is not None:
            raise PluginError(
                f"plugin {plugin!r} has the transform {transform.kind!r}, "
                f"which is there already, from plugin {there.plugin!r}"
            )
        self._kinds[transform.kind] = _Registered(plugin, transform, fenced)
        self._ready.clear()

    def remove_plugin(self, plugin: str) -> None:
        """Take away all kinds of one plugin."""
        self._kinds = {kind: one for kind, one in self._kinds.items() if one.plugin != plugin}
        self._ready.clear()

    def check(self, text: str) -> None:
        """Check what a route says.

        Raises:
            RouteError: it cannot be read, nobody offers its kind, or it cannot be made.
        """
        for kind, argument in steps_of(text):
            if kind in self._kinds:
                self._step(kind, argument)
            elif self._incomplete():
                import structlog  # noqa: PLC0415  # `hubbub` itself is imported without it

                log = structlog.get_logger(__name__)
                log.warning("transform.unknown", kind=kind, hint="its plugin may be off")
            else:
                known = ", ".join(sorted(self._kinds)) or "none"
                raise RouteError(f"no plugin offers the transform {kind!r}; known are {known}")

    def get(self, text: str) -> Transformed | None:
        """Return what a route says as one function; None when nobody offers it any more."""
        ready = self._ready.get(text)
        if ready is None:
            try:
                ready = _chain([self._step(kind, argument) for kind, argument in steps_of(text)])
            except (KeyError, RouteError):
                return None
            if len(self._ready) >= CACHE_LIMIT:
                self._ready.clear()
            self._ready[text] = ready
        return ready

    def _step(self, kind: str, argument: str) -> Transformed:
        one = self._kinds[kind]
        try:
            made = one.transform.make(argument)
        except Exception as error:  # the plugin boundary: it refuses the route
            raise RouteError(
                f"the transform {kind}:{argument} cannot be made: {type(error).__name__}: {error}"
            ) from error
        if not callable(made):
            raise RouteError(
                f"the transform {kind}:{argument} cannot be made: plugin {one.plugin!r} gave a "
                f"{type(made).__name__}, which cannot be called"
            )
        return one.fenced(made)


def steps_of(text: str) -> list[tuple[str, str]]:
    """Read `kind:argument | kind:argument`.

    Raises:
        RouteError: it is not so.
    """
    parts = [part.strip().partition(":") for part in text.split(" | ")]
    if len(parts) > MAX_STEPS:
        raise RouteError(f"transform has {len(parts)} steps, the limit is {MAX_STEPS}")
    for kind, colon, _ in parts:
        if not (colon and _KIND.fullmatch(kind)):
            raise RouteError(
                f"transform {text!r} should be 'kind:argument', such as 'lua:scripts/trim.lua', "
                "or several of them with ' | ' between"
            )
    return [(kind, argument) for kind, _, argument in parts]


def _chain(steps: list[Transformed]) -> Transformed:
    if len(steps) == 1:
        return steps[0]

    def run(envelope: Envelope) -> Envelope | None:
        for step in steps:
            given = step(envelope)
            if given is None:
                return None
            envelope = given
        return envelope

    return run
