"""Content negotiation: from the type an envelope has to one its endpoint accepts.

Adapters convert only between their native types and the canonical ones, so the way from one
adapter to another is a chain of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import PluginError
from hubbub.values import EVERYTHING, Endpoint

__all__ = ["CACHE_LIMIT", "MAX_CHAIN", "Conversions", "Converter", "converter_of"]

MAX_CHAIN: Final = 4
"""Converters one envelope may pass on its way to one endpoint."""

CACHE_LIMIT: Final = 4096
"""Chains remembered; what endpoints accept comes from outside, so it cannot grow for ever."""


@dataclass(frozen=True, slots=True)
class Converter:
    """Makes an envelope of one type from an envelope of another.

    Attributes:
        function: Gives the new envelope, or None for one that the endpoint shall not get; its
            delivery ends `filtered`.
        for_endpoint: Whether the function takes the endpoint as its second argument, because what
            it gives depends on who gets it.
    """

    from_type: str
    to_type: str
    function: Callable[..., Envelope | None]
    for_endpoint: bool = False

    def convert(self, envelope: Envelope, endpoint: Endpoint) -> Envelope | None:
        """Return the envelope as the endpoint takes it; None when it shall not get it."""
        return self.function(envelope, endpoint) if self.for_endpoint else self.function(envelope)


Chain = tuple[Converter, ...]


@dataclass(frozen=True, slots=True)
class _Registered:
    plugin: str
    converter: Converter


def converter_of(given: Converter | Sequence[object]) -> Converter:
    """Return what a plugin gives as a converter: one, or `(from_type, to_type, function)`.

    Raises:
        PluginError: it is neither.
    """
    match given:
        case Converter():
            return given
        case (str(from_type), str(to_type), function) if callable(function):
            return Converter(from_type, to_type, cast("Callable[..., Envelope | None]", function))
        case _:
            raise PluginError(f"{given!r} is no converter; give (from_type, to_type, function)")


class Conversions:
    """All converters, and the shortest chain between two types."""

    def __init__(self) -> None:
        self._registered: list[_Registered] = []
        self._by_source: dict[str, list[_Registered]] = {}
        self._chains: dict[tuple[str, tuple[str, ...]], Chain | None] = {}

    def add(self, converter: Converter, *, plugin: str) -> None:
        """Register a converter; of two for the same pair the first one is used.

        Raises:
            PluginError: it converts a type to itself.
        """
        if converter.from_type == converter.to_type:
            raise PluginError(
                f"plugin {plugin!r} has a converter from {converter.from_type!r} to itself; "
                "change envelopes with the hook before_route instead"
            )
        self._registered.append(_Registered(plugin, converter))
        self._changed()

    def remove_plugin(self, plugin: str) -> None:
        """Take away all converters of one plugin."""
        self._registered = [entry for entry in self._registered if entry.plugin != plugin]
        self._changed()

    def _changed(self) -> None:
        self._chains.clear()
        self._by_source.clear()
        for entry in self._registered:
            self._by_source.setdefault(entry.converter.from_type, []).append(entry)

    def accepts(self, from_type: str, accepts: tuple[str, ...]) -> bool:
        """Tell whether an endpoint can take a type, natively or by conversion."""
        return self.chain(from_type, accepts) is not None

    def chain(self, from_type: str, accepts: tuple[str, ...]) -> Chain | None:
        """Return the shortest chain to a type that is accepted.

        Args:
            accepts: Types the endpoint takes; empty, or with `"*"`, for all but task requests.
                These are neither converted nor part of "all": work is for those who name it.

        Returns:
            The converters in the order to call them, none when the type is taken as it is. Of
            chains of one length, the one whose converters were registered first, the first step
            deciding. None when no chain of up to `MAX_CHAIN` leads there.
        """
        if from_type in accepts:
            return ()
        if from_type == TASK_REQUEST:
            return None
        if not accepts or EVERYTHING in accepts:
            return ()
        if from_type not in self._by_source:  # also keeps foreign types out of the cache
            return None
        asked = (from_type, accepts)
        try:
            return self._chains[asked]
        except KeyError:
            pass
        if len(self._chains) >= CACHE_LIMIT:
            self._chains.clear()
        found = self._chains[asked] = self._search(from_type, frozenset(accepts))
        return found

    def _search(self, from_type: str, wanted: frozenset[str]) -> Chain | None:
        seen = {from_type}
        level: list[tuple[str, Chain]] = [(from_type, ())]
        for _ in range(MAX_CHAIN):
            following: list[tuple[str, Chain]] = []
            for at, chain in level:
                for entry in self._by_source.get(at, ()):
                    converter = entry.converter
                    if converter.to_type in seen:
                        continue
                    seen.add(converter.to_type)
                    longer = (*chain, converter)
                    if converter.to_type in wanted:
                        return longer
                    following.append((converter.to_type, longer))
            level = following
        return None
