"""A route in hub.toml, and the same as the body of a PUT."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hubbub.config import RouteSettings
from hubbub.errors import RouteError
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
    "nowhere": ({"to": []}, "to: "),
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


def test_route_has_a_json_schema() -> None:
    """The description of the API can be made of the model."""
    properties = RouteSettings.model_json_schema()["properties"]
    assert properties["timeout"]["anyOf"][0]["examples"] == ["30s"]
