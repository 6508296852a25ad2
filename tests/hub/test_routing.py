"""The routing table: order, fallback, templates, keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.envelope import EVENT, TASK_REQUEST, Envelope
from hubbub.errors import NotFoundError, RouteError
from hubbub.routing import RoutingTable
from hubbub.subjects import matches
from hubbub.values import Origin, Route

ORIGINS: tuple[Origin, ...] = ("file", "api", "plugin", "private")


def names(table: RoutingTable, subject: str, **how: Any) -> list[str]:
    """Return the routes that an envelope matches, in order."""
    envelope = Envelope.new(source="s", subject=subject, **how)
    return [found.route.name for found in table.match(envelope)]


def test_routes_stand_in_order_of_their_origin() -> None:
    """File, API by name, plugin, private; within one by age."""
    table = RoutingTable()
    given_routes: list[tuple[str, Origin]] = [
        ("z", "private"), ("y", "plugin"), ("b", "api"), ("x", "file"), ("a", "api"), ("w", "file"),
    ]  # fmt: skip
    for name, origin in given_routes:
        table.put(Route(name=name, match="a.>", to=("t",), origin=origin))
    assert names(table, "a.b") == ["x", "w", "a", "b", "y", "z"]
    assert [route.name for route in table] == ["x", "w", "a", "b", "y", "z"]


def test_a_replaced_route_keeps_its_place() -> None:
    """And its old pattern no longer matches."""
    table = RoutingTable()
    for name in ("one", "two"):
        table.put(Route(name=name, match="a", to=("t",)))
    table.put(Route(name="one", match="b", to=("t",)))
    assert names(table, "a") == ["two"]
    table.put(Route(name="one", match="a", to=("u",)))
    assert names(table, "a") == ["one", "two"]


def test_a_fallback_is_for_what_nobody_else_wants() -> None:
    """Fallbacks apply together, and only where no other route matched."""
    table = RoutingTable()
    table.put(Route(name="f1", match=">", to=("t",), fallback=True, origin="file"))
    table.put(Route(name="f2", match="a.>", to=("t",), fallback=True))
    assert names(table, "a.b") == ["f1", "f2"]
    table.put(Route(name="r", match="a.b", to=("t",)))
    assert names(table, "a.b") == ["r"]
    assert names(table, "a.c") == ["f1", "f2"]


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_subscription_silences_no_fallback(origin: Origin) -> None:
    """Who only looks on takes nothing away; beside a route of anybody else no fallback holds."""
    table = RoutingTable()
    table.put(Route(name="watch", match=">", to=("w",), origin="private"))
    table.put(Route(name="f", match="a", to=("t",), fallback=True))
    assert names(table, "a") == ["watch", "f"]
    table.put(Route(name="r", match="a", to=("t",), origin=origin))
    left = ["watch", "r", "f"] if origin == "private" else ["r", "watch"]
    assert names(table, "a") == left
    table.remove("r")
    assert names(table, "a") == ["watch", "f"]


def test_a_route_whose_condition_fails_leaves_the_fallback() -> None:
    """A match is subject, type and condition together."""
    table = RoutingTable()
    table.put(Route(name="r", match="a", to=("t",), where={"data.n": 1}))
    table.put(Route(name="typed", match="a", to=("t",), types=("x.v1",)))
    table.put(Route(name="f", match="a", to=("t",), fallback=True))
    assert names(table, "a", data={"n": 1}) == ["r"]
    assert names(table, "a", data={"n": 2}) == ["f"]
    assert names(table, "a", data={"n": 2}, type="x.v1") == ["typed"]


def test_a_template_takes_tokens_of_the_subject() -> None:
    """A token that is not there makes that target void, not the route."""
    table = RoutingTable()
    table.put(Route(name="r", match="a.>", to=("x.{subject.1}", "y.{subject.2}.z", "w")))
    (found,) = table.match(Envelope(source="s", subject="a.b"))
    assert found.targets(Envelope(source="s", subject="a.b")) == ["x.b", "w"]
    assert found.targets(Envelope(source="s", subject="a.b.c")) == ["x.b", "y.c.z", "w"]


def test_a_route_gives_the_key_of_its_path() -> None:
    """Else the envelope's own; numbers are keys too."""
    table = RoutingTable()
    table.put(Route(name="r", match="a", to=("t",), key="data.user"))
    envelope = Envelope.new(source="s", subject="a", key="own", data={"user": "u1"})
    (found,) = table.match(envelope)
    assert found.key_of(envelope) == "u1"
    assert found.key_of(envelope.replace(data=b'{"user":7}')) == "7"
    assert found.key_of(envelope.replace(data=b"{}")) == "own"
    assert found.key_of(envelope.replace(data=b"no json")) == "own"


@pytest.mark.parametrize(
    "route",
    [
        Route(name="r", match="a.>.b", to=("t",)),
        Route(name="r", match="", to=("t",)),
        Route(name="r", match="a", to=()),
        Route(name="", match="a", to=("t",)),
        Route(name="r", match="a", to=("t*",)),
    ],
    ids=["pattern", "empty", "no target", "no name", "target"],
)
def test_a_bad_route_changes_nothing(route: Route) -> None:
    """It is refused, and the one of its name stays."""
    table = RoutingTable()
    table.put(Route(name="r", match="a", to=("kept",)))
    with pytest.raises(RouteError):
        table.put(route)
    assert table.get("r").to == ("kept",)
    assert names(table, "a") == ["r"]


def test_a_name_belongs_to_its_origin() -> None:
    """The API cannot replace a route of the file."""
    table = RoutingTable()
    table.put(Route(name="r", match="a", to=("t",), origin="file"))
    with pytest.raises(RouteError):
        table.put(Route(name="r", match="b", to=("t",), origin="api"))


def test_a_removed_route_is_gone() -> None:
    """And removing it again is an error."""
    table = RoutingTable()
    table.put(Route(name="r", match="a", to=("t",)))
    table.remove("r")
    assert names(table, "a") == []
    assert not table.any_match("a", EVENT)
    with pytest.raises(NotFoundError):
        table.remove("r")


tokens = st.sampled_from(["a", "b"])
routes = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a.>", "*.b", ">", "a.*", "*"]),
        st.sampled_from(ORIGINS),
        st.booleans(),
    ),
    max_size=8,
)


@given(routes, st.lists(tokens, min_size=1, max_size=3).map(".".join))
def test_a_look_up_finds_what_a_scan_finds(
    given_routes: list[tuple[str, Origin, bool]], subject: str
) -> None:
    """The same routes in the same order as looking at each of them."""
    table = RoutingTable()
    made: list[Route] = []
    for number, (match, origin, fallback) in enumerate(given_routes):
        route = Route(name=f"r{number}", match=match, to=("t",), origin=origin, fallback=fallback)
        table.put(route)
        made.append(route)
    made.sort(key=lambda route: ORIGINS.index(route.origin))
    covers = [route for route in made if matches(route.match, subject)]
    covers.sort(key=lambda route: route.fallback)
    if any(not route.fallback and route.origin != "private" for route in covers):
        covers = [route for route in covers if not route.fallback]
    wanted = covers
    assert names(table, subject) == [route.name for route in wanted]


@pytest.mark.parametrize("target", ["x.{foo}", "x.{0.__class__}", "x.{{1}}", "a.{subject.9}"])
def test_other_braces_of_a_target_are_text(target: str) -> None:
    """Only `{subject.n}` stands for something; a token that is not there makes the target void."""
    table = RoutingTable()
    table.put(Route(name="r", match="a.b", to=(target, "to.{subject.1}")))
    envelope = Envelope(source="test.a", subject="a.b")
    (found,) = table.match(envelope)
    void = target.startswith("a.")
    assert list(found.targets(envelope)) == (["to.b"] if void else [target, "to.b"])


@pytest.mark.parametrize(
    ("pattern", "works"),
    [
        ("tasks.echo.request", True),
        ("relay.child.task.>", True),
        ("tasks.>", False),
        ("tasks.echo.*", False),
        (">", False),
    ],
)
def test_who_watches_tasks_is_given_none(pattern: str, works: bool) -> None:
    """A subscription that hears results too belongs to somebody who looks on."""
    table = RoutingTable()
    table.put(Route(name="mine", match=pattern, to=("stream.a",), origin="private"))
    table.put(Route(name="workers", match=">", to=("work.>",), fallback=True))
    for subject in ("tasks.echo.request", "relay.child.task.echo"):
        request = Envelope(source="test.a", subject=subject, type=TASK_REQUEST)
        taken = "mine" if works and matches(pattern, subject) else "workers"
        assert [found.route.name for found in table.match(request)] == [taken]
