"""The routing table: which routes an envelope matches, in which order.

A look-up walks a trie of subject patterns, then checks each found route's conditions. The cost
grows with the tokens of the subject and with the routes that match, not with the routes there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Final

from hubbub.conditions import MISSING, Condition, compile_path, compile_where
from hubbub.envelope import TASK_REQUEST, Envelope
from hubbub.errors import NotFoundError, RouteError, SubjectError
from hubbub.subjects import SubjectTrie, check_pattern, matches
from hubbub.transforms import Transforms
from hubbub.values import Origin, Route

__all__ = ["CompiledRoute", "RoutingTable"]

ORDER: Final[dict[Origin, int]] = {"file": 0, "api": 1, "plugin": 2, "private": 3}

MAX_MATCHED: Final = 1024
"""Subjects of which it is remembered whether any route matches them."""

Converts = Callable[[str, tuple[str, ...]], bool]
"""Tells whether an envelope type can be had as one of some others."""

_TEMPLATE: Final = re.compile(r"\{subject\.(\d{1,2})\}")


@dataclass(slots=True, eq=False)
class CompiledRoute:
    """A route made ready: conditions as closures, its place in the order as a number.

    Attributes:
        templates: Its targets as `str.format` takes them, with the subject's tokens; empty when
            no target has one of them.
    """

    route: Route
    order: tuple[int, int | str]
    condition: Condition | None
    key: Callable[[Envelope], object] | None
    labels: tuple[tuple[str, str], ...]
    templates: tuple[str, ...] = ()

    def targets(self, envelope: Envelope) -> Sequence[str]:
        """Return addresses and patterns this envelope goes to; `{subject.n}` filled in.

        A token that the subject does not have makes the target void.
        """
        if not self.templates:
            return self.route.to
        tokens = envelope.subject.split(".")
        found: list[str] = []
        for template in self.templates:
            with suppress(IndexError):
                found.append(template.format(*tokens))
        return found

    def key_of(self, envelope: Envelope) -> str | None:
        """Return the ordering key: the route's path if it is there, else the envelope's own."""
        if self.key is not None:
            found = self.key(envelope)
            if found is not MISSING and found is not None:
                return found if isinstance(found, str) else repr(found)
        return envelope.key


class RoutingTable:
    """All routes, of the file, the API, plugins and private subscriptions.

    Args:
        converts: What converters can do, for the `types` of fallbacks; None is nothing.
        too_costly: Called each time a condition does not run because of what it would cost.
    """

    def __init__(
        self,
        converts: Converts | None = None,
        *,
        transforms: Transforms | None = None,
        too_costly: Callable[[], None] | None = None,
    ) -> None:
        self._trie: SubjectTrie[CompiledRoute] = SubjectTrie()
        self._by_name: dict[str, CompiledRoute] = {}
        self._matched: dict[tuple[str, str], bool] = {}
        self._count = 0
        self._converts = converts
        self._transforms = transforms or Transforms()
        self._too_costly = too_costly

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Route]:
        return (c.route for c in sorted(self._by_name.values(), key=_place))

    def get(self, name: str) -> Route:
        """Return a route.

        Raises:
            NotFoundError: no route of that name.
        """
        compiled = self._by_name.get(name)
        if compiled is None:
            raise NotFoundError(f"no route is named {name!r}; `hubbub routes ls` shows the table")
        return compiled.route

    def put(self, route: Route) -> None:
        """Add a route, or replace the one of its name.

        Raises:
            RouteError: a pattern, condition or key that cannot be used; or the name belongs to a
                route of another origin.
        """
        before = self._by_name.get(route.name)
        if before is not None and before.route.origin != route.origin:
            raise RouteError(
                f"route {route.name!r} is there already, from {before.route.origin}; "
                "give this one another name"
            )
        compiled = self._compile(route, before)
        if before is not None:
            self._trie.remove(before.route.match, before)
        self._matched.clear()
        self._trie.add(route.match, compiled)
        self._by_name[route.name] = compiled

    def replace_all(self, origin: Origin, routes: Sequence[Route]) -> None:
        """Put these routes, in this order, in the place of all of one origin; all or none.

        Raises:
            RouteError: one of them cannot be used; the table is as it was.
        """
        compiled = [
            replace(self._compile(route, None), order=(ORDER[origin], place))
            for place, route in enumerate(routes)
        ]
        before = [each for each in self._by_name.values() if each.route.origin == origin]
        for each in compiled:
            there = self._by_name.get(each.route.name)
            if there is not None and there.route.origin != origin:
                raise RouteError(
                    f"route {each.route.name!r} is there already, from {there.route.origin}; "
                    "give this one another name"
                )
        self._matched.clear()
        for each in before:
            self._trie.remove(each.route.match, self._by_name.pop(each.route.name))
        for each in compiled:
            self._trie.add(each.route.match, each)
            self._by_name[each.route.name] = each

    def remove(self, name: str) -> Route:
        """Take a route out.

        Raises:
            NotFoundError: no route of that name.
        """
        route = self.get(name)
        self._matched.clear()
        self._trie.remove(route.match, self._by_name.pop(name))
        return route

    def match(
        self, envelope: Envelope, *, but: Callable[[Route], bool] | None = None
    ) -> list[CompiledRoute]:
        """Return the routes an envelope matches, in order.

        Fallbacks are among them unless a route of the file, the API or a plugin is. Who subscribed
        something looks on, and takes it away from nobody; of a task it is its worker.

        Args:
            but: Tells which of them are left out.
        """
        found = self._trie.find(envelope.subject)
        if not found:
            return found
        holds = [c for c in found if self._holds(c, envelope)]
        if but is not None:
            holds = [c for c in holds if not but(c.route)]
        if len(holds) > 1:
            holds.sort(key=_place)
            if holds[-1].route.fallback:
                first = [c for c in holds if not c.route.fallback]
                if any(_takes_away(c.route, envelope) for c in first):
                    return first
        return holds

    def any_match(self, subject: str, envelope_type: str) -> bool:
        """Tell whether some route might take an envelope of this subject and type.

        For the few subjects that the hub itself asks about; the answers are kept until the
        table changes.
        """
        asked = (subject, envelope_type)
        known = self._matched.get(asked)
        if known is None:
            if len(self._matched) >= MAX_MATCHED:
                self._matched.clear()
            found = self._trie.find(subject)
            known = self._matched[asked] = any(self._is_for(c.route, envelope_type) for c in found)
        return known

    def _holds(self, compiled: CompiledRoute, envelope: Envelope) -> bool:
        route = compiled.route
        if not self._is_for(route, envelope.type):
            return False
        if (
            envelope.type == TASK_REQUEST
            and route.origin == "private"
            and _watches(route.match, envelope.subject)
        ):
            return False
        return compiled.condition is None or compiled.condition(envelope)

    def _is_for(self, route: Route, envelope_type: str) -> bool:
        """Tell whether a route is for a type; a fallback is for what can be made of it, too."""
        types = route.types
        if not types or envelope_type in types:
            return True
        return (
            route.fallback and self._converts is not None and self._converts(envelope_type, types)
        )

    def _compile(self, route: Route, before: CompiledRoute | None) -> CompiledRoute:
        check_route(route)
        if route.transform is not None:
            try:
                self._transforms.check(route.transform)
            except RouteError as error:
                raise RouteError(f"route {route.name!r}: {error}") from error
        if before is not None:
            order = before.order
        else:
            self._count += 1
            name_or_place = route.name if route.origin == "api" else self._count
            order = (ORDER[route.origin], name_or_place)
        return CompiledRoute(
            route=route,
            order=order,
            condition=compile_where(route.where, route.where_cel, too_costly=self._too_costly),
            key=None if route.key is None else compile_path(route.key),
            labels=tuple(sorted(route.labels.items())) if route.labels else (),
            templates=_templates(route.to),
        )


def _watches(pattern: str, subject: str) -> bool:
    """Tell whether a subscription to a task's request hears its result too: it does not work."""
    head, _, last = subject.rpartition(".")
    result = f"{head}.completed" if last == "request" else "tasks.any.completed"
    return matches(pattern, result)


def _templates(to: Sequence[str]) -> tuple[str, ...]:
    for target in to:
        if "{" in target:
            return tuple(_template(target) for target in to)
    return ()


def _template(target: str) -> str:
    """Return a target for `str.format`: tokens by their place, all other braces as they are."""
    parts = _TEMPLATE.split(target)
    literals = [part.replace("{", "{{").replace("}", "}}") for part in parts[::2]]
    places = [f"{{{int(place)}}}" for place in parts[1::2]]
    return "".join(chain.from_iterable(zip_longest(literals, places, fillvalue="")))


def check_route(route: Route) -> None:
    """Check names and patterns of a route.

    Raises:
        RouteError: with the member that is wrong.
    """
    try:
        check_pattern(route.match)
        for to in route.to:
            check_pattern(_TEMPLATE.sub("x", to) if "{" in to else to)
    except SubjectError as error:
        raise RouteError(f"route {route.name!r}: {error}") from error
    if not route.to:
        raise RouteError(f"route {route.name!r} has no `to`; name an address or a pattern")
    if not route.name:
        raise RouteError("a route has no name; give it one that is its own")


def _takes_away(route: Route, envelope: Envelope) -> bool:
    """Tell whether a route that is no fallback silences those: a task has one worker."""
    return route.origin != "private" or envelope.type == TASK_REQUEST


def _place(compiled: CompiledRoute) -> tuple[int, int, int | str]:
    return (compiled.route.fallback, *compiled.order)
