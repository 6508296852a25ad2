"""A route in hub.toml, and the same as the body of a PUT."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hubbub.config import RouteSettings, kept_route
from hubbub.errors import RouteError
from hubbub.routing import check_route
from hubbub.values import Route, RouteCase

FULL: dict[str, Any] = {
    "name": "help",
    "match": "relay.child.task.>",
    "where": {"data.params.size": {"lt": 1000}},
    "to": ["octohub.node.*", "audit.{subject.1}"],
    "types": ["hubbub.task.request.v1"],
    "labels": {"gpu": "yes"},
    "deliver": "one",
    "hold": "10m",
    "key": "data.params.user_id",
    "durable": True,
    "attempts": 7,
    "timeout": "30s",
    "transform": "lua:scripts/trim.lua",
    "test": [{"given": {"subject": "relay.child.task.x", "data": 1}, "to": ["octohub.node.*"]}],
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no subject pattern": ({"match": "a.>.b"}, "match: pattern 'a.>.b' has '>' before its end"),
    "no address pattern": ({"to": ["a..b"]}, "to.0: .*empty token"),
    "unknown template": ({"to": ["a.{name}"]}, "to.0: .*template"),
    "token too far": ({"to": ["a.{subject.32}"]}, "to.0: .*over the last token"),
    "token that is not there": (
        {"match": "a.*", "to": ["x.{subject.2}"]},
        r"to names \{subject.2\}, .* 'a.\*' has only 2",
    ),
    "nowhere": ({"to": []}, "to: "),
    "condition": ({"where": {"data.x": {"regex": "("}}}, "where: .*bad regular expression"),
    "cel": ({"where_cel": "1 +"}, "where_cel: .*cannot be read"),
    "key": ({"key": "nope.x"}, "key: path 'nope.x' begins with 'nope'"),
    "deliver": ({"deliver": "some"}, "deliver: should be 'all', 'one' or 'sticky'"),
    "no attempt": ({"attempts": 0}, "attempts: should be greater than or equal to 1"),
    "too many attempts": ({"attempts": 1001}, "attempts: should be less than or equal to 1000"),
    "attempts as a boolean": ({"attempts": True}, "attempts: .*not true or false"),
    "no time": ({"timeout": "0s"}, "timeout: should be greater than 0"),
    "transform": ({"transform": "trim.lua"}, "transform 'trim.lua' should be"),
    "holds what is not kept": ({"durable": False}, "hold is for durable"),
    "test without subject": (
        {"test": [{"given": {}, "to": []}]},
        r'test.0.given: needs a "subject"',
    ),
    "test with a pattern": ({"test": [{"given": {"subject": "a.*"}, "to": []}]}, "has a wildcard"),
    "unknown key": ({"atempts": 1}, "atempts: unknown key; did you mean 'attempts'"),
    "other name": ({"name": "other"}, "take its name out"),
}


def test_full_route_becomes_the_value_of_the_table() -> None:
    """Nothing of the entry is lost on the way."""
    assert RouteSettings.model_validate(FULL).route() == Route(
        name="help",
        match="relay.child.task.>",
        to=("octohub.node.*", "audit.{subject.1}"),
        where={"data.params.size": {"lt": 1000}},
        types=("hubbub.task.request.v1",),
        labels={"gpu": "yes"},
        deliver="one",
        hold_s=600.0,
        key="data.params.user_id",
        durable=True,
        attempts=7,
        timeout_s=30.0,
        transform="lua:scripts/trim.lua",
        origin="file",
        cases=(
            RouteCase(given={"subject": "relay.child.task.x", "data": 1}, to=("octohub.node.*",)),
        ),
    )


def test_short_route_has_the_defaults_of_the_value() -> None:
    """A settings model and `Route` agree about what is not said."""
    short = RouteSettings.from_json("r", {"match": "a.>", "to": ["b"]})
    assert short.route("api") == Route(name="r", match="a.>", to=("b",), origin="api")


@pytest.mark.parametrize(("change", "complaint"), BAD.values(), ids=BAD)
def test_bad_body_is_refused_with_its_place(change: dict[str, Any], complaint: str) -> None:
    """The body of a PUT gives a RouteError that names the key."""
    with pytest.raises(RouteError, match=complaint) as caught:
        RouteSettings.from_json("help", {**FULL, **change})
    assert caught.value.__context__ is None


PARTS: dict[str, st.SearchStrategy[Any]] = {
    "match": st.sampled_from(["a.b", "a..b", "a.>.b", "", 1, None]),
    "to": st.lists(st.sampled_from(["b", "b.*", "b.{subject.1}", "b.{x}", "}", "b..", "", 1])),
    "types": st.lists(st.sampled_from(["t", 1]), max_size=2) | st.none(),
    "labels": st.dictionaries(st.sampled_from("ab"), st.sampled_from(["x", 1])) | st.none(),
    "deliver": st.sampled_from(["all", "one", "sticky", "some", None]),
    "fallback": st.sampled_from([True, False, None, 1, "yes", "what"]),
    "key": st.sampled_from(["data.x", None, 1]),
    "durable": st.sampled_from([True, False, None, 1, "no", "what"]),
    "hold": st.sampled_from(["10m", 0, "soon"]),
    "name": st.sampled_from(["r", "other"]),
    "colour": st.just("red"),
}


@given(
    st.fixed_dictionaries({}, optional=PARTS).map(
        lambda body: {"match": "a.>", "to": ["b"], **body},
    ),
    st.sampled_from(["r", "", "n" * 201]),
)
def test_a_kept_body_is_read_as_it_was_when_it_came(body: dict[str, Any], name: str) -> None:
    """With or without pydantic: the same route in the table, or none."""
    try:
        expected = RouteSettings.from_json(name, body).route("api")
        check_route(expected)
    except RouteError:
        with pytest.raises(RouteError):
            check_route(kept_route(name, json.dumps(body)))
    else:
        assert kept_route(name, json.dumps(body)) == expected


def test_attempts_may_be_1_to_1000() -> None:
    """Both ends of the range are allowed."""
    assert [
        RouteSettings.from_json("r", {**FULL, "name": "r", "attempts": n}).attempts
        for n in (1, 1000)
    ] == [1, 1000]


def test_name_has_1_to_200_characters() -> None:
    """One more, and one less, is refused."""
    assert RouteSettings.model_validate({**FULL, "name": "n" * 200}).name == "n" * 200
    for name in ("", "n" * 201):
        with pytest.raises(ValidationError):
            RouteSettings.model_validate({**FULL, "name": name})


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\u202ea"])
def test_name_can_be_printed(name: str) -> None:
    """It is shown in traces and logs, and PostgreSQL keeps no NUL."""
    with pytest.raises(RouteError, match=r"name: .*control character"):
        RouteSettings.from_json(name, {"match": "a", "to": ["b"]})


def test_route_has_a_json_schema() -> None:
    """The description of the API can be made of the model."""
    properties = RouteSettings.model_json_schema()["properties"]
    assert properties["timeout"]["anyOf"][0]["examples"] == ["30s"]
