"""One `[[routes]]` entry; also the body of `PUT /api/v1/routes/{name}`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Final, Self, cast

import msgspec
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hubbub.conditions import compile_path, compile_where
from hubbub.config.problems import dotted, explain
from hubbub.config.settings import Settings
from hubbub.config.units import Duration
from hubbub.errors import RouteError, SubjectError
from hubbub.subjects import MAX_TOKENS, check_pattern, check_subject
from hubbub.transforms import steps_of
from hubbub.values import Deliver, Origin, Route, RouteCase

__all__ = ["RouteCaseSettings", "RouteSettings", "kept_route"]

MAX_ROUTE_NAME: Final = 200
"""Characters of a route's name."""

_TEMPLATE: Final = re.compile(r"\{subject\.(\d{1,2})\}", re.ASCII)


def _pattern(text: str) -> str:
    try:
        return check_pattern(text)
    except SubjectError as error:
        raise ValueError(str(error)) from None


def _target(text: str) -> str:
    """Check an address pattern in which `{subject.1}` may stand."""
    for index in _TEMPLATE.findall(text):
        if int(index) >= MAX_TOKENS:
            raise ValueError(f"{{subject.{index}}} is over the last token, {MAX_TOKENS - 1}")
    plain = _TEMPLATE.sub("x", text)
    if "{" in plain or "}" in plain:
        raise ValueError(
            f"{text!r} has a template the hub does not know; "
            'write "{subject.1}" for the second token of the subject'
        )
    _pattern(plain)
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A subject or address pattern: `*` is one token, a final `>` the rest."""

Target = Annotated[str, AfterValidator(_target)]
"""An address pattern with templates."""


class RouteCaseSettings(Settings):
    """One `[[routes.test]]`: an envelope, and where the whole table must send it."""

    given: dict[str, object] = Field(
        description='The envelope: "subject" (required), "type", "data".'
    )
    to: tuple[Pattern, ...] = Field(
        description="Addresses it must go to, and no other; empty for nowhere."
    )

    @field_validator("given")
    @classmethod
    def _has_a_subject(cls, given: dict[str, object]) -> dict[str, object]:
        subject = given.get("subject")
        if not isinstance(subject, str):
            raise ValueError('needs a "subject", such as { subject = "orders.created" }')  # noqa: TRY004  # pydantic collects ValueError only
        try:
            check_subject(subject)
        except SubjectError as error:
            raise ValueError(str(error)) from None
        return given


class RouteSettings(Settings):
    """One route."""

    name: str = Field(
        min_length=1,
        max_length=MAX_ROUTE_NAME,
        description="Unique name, shown in traces and in the console.",
    )
    match: Pattern = Field(
        description='Subject pattern: "*" is one token, a final ">" one or more.'
    )
    to: tuple[Target, ...] = Field(
        min_length=1,
        description='Addresses or address patterns; "{subject.1}" is the second token of the '
        "subject.",
    )
    where: dict[str, object] = Field(
        default_factory=dict[str, object],
        description="JSON paths and what must stand there: a value, a list (one of them), or "
        "operators eq ne lt le gt ge in contains prefix suffix regex exists; all must hold.",
    )
    where_cel: str | None = Field(
        default=None, description="A condition as a CEL expression; needs the extra `cel`."
    )
    types: tuple[str, ...] = Field(
        default=(), description="Envelope types it is for; empty for all."
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], description="Labels an endpoint must have."
    )
    deliver: Deliver = Field(
        default="all",
        description='How many of the endpoints get it: "all", "one" that has a free slot, or '
        '"sticky", the same one for the same key.',
    )
    fallback: bool = Field(
        default=False,
        description="Only where no other route of hub.toml, the API or a plugin matched; "
        "subscriptions do not count.",
    )
    hold: Duration = Field(
        default=0.0,
        description="How long a durable envelope is kept when no endpoint is known yet.",
    )
    key: str | None = Field(
        default=None,
        description="JSON path of the key for order and stickiness; without it, the "
        "envelope's own.",
    )
    durable: bool | None = Field(
        default=None,
        description="Whether its messages are stored, also those it finds no endpoint for; without "
        "it, what the publisher or the source "
        "says.",
    )
    attempts: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Attempts of one delivery; without it, the adapter's or `hub.attempts`.",
    )
    timeout: Duration | None = Field(
        default=None,
        gt=0,
        description="How long one attempt may take; without it, the adapter's or `hub.timeout`.",
    )
    transform: str | None = Field(
        default=None,
        description='A transform that a plugin offers, as "kind:argument"; several with " | " '
        "between run one after the other.",
    )
    test: tuple[RouteCaseSettings, ...] = Field(
        default=(),
        description="Tests of the table, run by `hubbub check` and in the console.",
    )

    @field_validator("name")
    @classmethod
    def _can_be_printed(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError(f"{name!r} has a control character; take it out")
        return name

    @field_validator("where", "where_cel", "key")
    @classmethod
    def _can_be_asked(cls, said: object, info: ValidationInfo) -> object:
        """Compile it once here, so that what is wrong has its own line."""
        try:
            match info.field_name:
                case "where":
                    compile_where(cast("Mapping[str, object]", said))
                case "where_cel":
                    compile_where({}, cast("str | None", said))
                case _ if said is not None:
                    compile_path(cast("str", said))
                case _:
                    pass
        except RouteError as error:
            raise ValueError(str(error)) from None
        return said

    @field_validator("transform")
    @classmethod
    def _names_a_kind(cls, transform: str | None) -> str | None:
        if transform is not None:
            try:
                steps_of(transform)
            except RouteError as error:
                raise ValueError(str(error)) from None
        return transform

    @model_validator(mode="after")
    def _holds_only_what_is_kept(self) -> Self:
        if self.hold and self.durable is False:
            raise ValueError("hold is for durable envelopes; take hold out, or durable = false")
        return self

    @model_validator(mode="after")
    def _names_tokens_that_are_there(self) -> Self:
        tokens = self.match.split(".")
        if tokens[-1] != ">":
            for index in _TEMPLATE.findall("".join(self.to)):
                if int(index) >= len(tokens):
                    raise ValueError(
                        f"to names {{subject.{index}}}, the first token is 0 and match = "
                        f"{self.match!r} has only {len(tokens)}"
                    )
        return self

    @classmethod
    def from_json(cls, name: str, body: Mapping[str, object]) -> Self:
        """Read the body of a `PUT`, which is the TOML entry as JSON, without the name.

        Raises:
            RouteError: anything is wrong; all of it is in the message.
        """
        if body.get("name", name) != name:
            raise RouteError(f"the body names another route; take its name out, it is {name!r}")
        try:
            return cls.model_validate({**body, "name": name})
        except ValidationError as error:
            problems = explain(error, cls)
        raise RouteError(
            "; ".join(
                f"{dotted(each.keys)}: {each.text}" if each.keys else each.text for each in problems
            )
        )

    def route(self, origin: Origin = "file") -> Route:
        """Return the route as the table holds it."""
        return Route(
            name=self.name,
            match=self.match,
            to=self.to,
            where=self.where,
            where_cel=self.where_cel,
            types=self.types,
            labels=self.labels,
            deliver=self.deliver,
            fallback=self.fallback,
            hold_s=self.hold,
            key=self.key,
            durable=self.durable,
            attempts=self.attempts,
            timeout_s=self.timeout,
            transform=self.transform,
            origin=origin,
            cases=tuple(RouteCase(given=case.given, to=case.to) for case in self.test),
        )


class _PlainRoute(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A body in which nothing has to be converted; its defaults are those of `RouteSettings`."""

    match: str
    to: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    types: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    deliver: Deliver = "all"
    fallback: bool = False
    key: str | None = None
    durable: bool | None = None


_decoder: Final = msgspec.json.Decoder(_PlainRoute)


def kept_route(name: str, body: str) -> Route:
    """Read the body of a route over the API, as the store has it.

    There may be very many: a plain one is read without pydantic. Its patterns are left to the
    table, which checks them anyway.

    Raises:
        RouteError: anything else is wrong; all of it is in the message.
    """
    plain = _plain_route(body)
    if plain is None or not 0 < len(name) <= MAX_ROUTE_NAME:
        return RouteSettings.from_json(name, json.loads(body)).route("api")
    return Route(
        name=name,
        match=plain.match,
        to=plain.to,
        types=plain.types,
        labels=plain.labels,
        deliver=plain.deliver,
        fallback=plain.fallback,
        key=plain.key,
        durable=plain.durable,
        origin="api",
    )


def _plain_route(body: str) -> _PlainRoute | None:
    try:
        plain = _decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    for target in plain.to:
        if "{" in target or "}" in target:
            return None
    return plain
