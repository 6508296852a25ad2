"""The description of the HTTP API (OpenAPI 3.1), made of the tables of operations. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from hubbub.errors import HubError, InvalidError
from hubbub.web.calls import Operation, Parameter
from hubbub.web.manners import Manners
from hubbub.web.mounting import Offer
from hubbub.web.problems import Problem, status_of
from hubbub.web.schemas import canonical_schemas, components

__all__ = ["openapi"]

AT: Final = "#/components/schemas/"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

_PART: Final = re.compile(r"\{(\w+)(:any)?\}")

PARTS: Final = {
    "id": "Its id.",
    "name": "Its name, escaped.",
    "address": "Its address.",
}

SAYS: Final = {
    400: "Cannot be parsed.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "A token that is too narrow.",
    404: "No such thing.",
    405: "Not this method.",
    409: "Not in this state.",
    413: "Over `hub.max_body`.",
    422: "Parsed, but not valid.",
    429: "Over `hub.publish_rate`; `Retry-After` says when.",
    503: "Cannot now; the same call may succeed later.",
    504: "No answer in time.",
}


def openapi(
    operations: Iterable[Operation], offers: Iterable[Offer] = (), *, version: str
) -> dict[str, Any]:
    """Return the description of the hub's operations, and of those of plugins and adapters."""
    known = [*(Offer(_tag_of(one.path), one) for one in operations), *offers]
    models = list(_models(known))
    refs, named = components([*models, Problem], at=AT)
    schema_of = dict(zip(map(id, models), refs, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    names = Counter[str]()
    for offer in known:
        path = _PART.sub(r"{\1}", offer.operation.path)
        described = _operation(offer, schema_of)
        names[described["operationId"]] += 1
        if names[described["operationId"]] > 1:  # of paths that differ in signs only
            described["operationId"] += f"_{names[described['operationId']]}"
        paths.setdefault(path, {})[offer.operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hubbub",
            "version": version,
            "summary": "A message hub: many protocols in, many protocols out.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**named, **canonical_schemas(at=AT)},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token; `hubbub token create` makes one.",
                }
            },
        },
    }


def _models(offers: Iterable[Offer]) -> Iterator[object]:
    seen: set[int] = set()
    for offer in offers:
        spec = offer.operation.spec
        for model in _each((*spec.answers.values(), spec.body, offer.manners.refusal)):
            if model is not None and not isinstance(model, str) and id(model) not in seen:
                seen.add(id(model))
                yield model


def _each(models: Iterable[object]) -> Iterator[object]:
    for model in models:
        if isinstance(model, tuple):
            yield from cast("tuple[object, ...]", model)
        else:
            yield model


def _content(model: object, media: Iterable[str], schema_of: dict[int, Any]) -> dict[str, Any]:
    """Describe a body: its types by their schemas, other media types as text."""
    parts = list(_each((model,)))
    content: dict[str, Any] = {
        part: {"schema": {"type": "string"}} for part in parts if isinstance(part, str)
    }
    schemas = [schema_of[id(part)] for part in parts if not isinstance(part, str)]
    if schemas:
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        content |= {one: {"schema": schema} for one in media}
    return content


def _operation(offer: Offer, schema_of: dict[int, Any]) -> dict[str, Any]:
    operation, spec = offer.operation, offer.operation.spec
    in_path = {one.name: one for one in spec.parameters if one.place == "path"}
    others = [one for one in spec.parameters if one.place != "path"]
    responses = {
        **{
            str(status): _answer(status, model, schema_of) for status, model in spec.answers.items()
        },
        **{str(status): _refusal(status, offer, schema_of) for status in _problems(offer)},
    }
    if not spec.answers:
        responses["default"] = {"description": "What it answers is not described."}
    described: dict[str, Any] = {
        "operationId": _name_of(operation),
        "summary": operation.says,
        "tags": [offer.owner],
        "parameters": [*_parts(operation.path, in_path), *map(_parameter, others)],
        "responses": responses,
    }
    if operation.scopes is None:
        described["security"] = []
    else:
        scopes = ", ".join(f"`{scope}`" for scope in operation.scopes) or "what it is about"
        described["description"] = f"Scope: {scopes}; `admin` is all of them."
    if spec.body is not None:
        described["requestBody"] = {
            "required": spec.body_needed,
            "content": _content(spec.body, spec.media, schema_of),
        }
    return described


def _problems(offer: Offer) -> list[int]:
    operation, spec = offer.operation, offer.operation.spec
    found = set(spec.problems)
    invalid = _status_of_invalid(offer.manners)
    if operation.scopes is not None:
        found |= {401, 403}
    if spec.body is not None:
        found |= {400, 413, invalid}
    if any(one.place != "path" for one in spec.parameters):
        found.add(invalid)
    if operation.method != "GET" or offer.manners.ready is not None:
        found.add(503)
    return sorted(found - set(spec.answers))


def _status_of_invalid(manners: Manners) -> int:
    """Return the status of what was parsed but is not valid."""
    error = InvalidError("a sample")
    said = error if manners.refuse is None else manners.refuse(error)
    return status_of(said) if isinstance(said, HubError) else said.status


def _answer(status: int, model: object, schema_of: dict[int, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if model is not None:
        said["content"] = _content(model, (JSON,), schema_of)
    return said


def _refusal(status: int, offer: Offer, schema_of: dict[int, Any]) -> dict[str, Any]:
    """Describe an error: a problem, unless these manners have another form for it."""
    refusal, of_callers = offer.manners.refusal, status in (401, 403)
    content: dict[str, Any] = {}
    if refusal is None or of_callers:
        content[PROBLEM] = {"schema": {"$ref": AT + "Problem"}}
    if refusal is not None and (not of_callers or status in offer.operation.spec.problems):
        content |= _content(refusal, (JSON,), schema_of)
    said: dict[str, Any] = {
        "description": SAYS.get(status, HTTPStatus(status).phrase),
        "content": content,
    }
    if status in (429, 503):
        said["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    return said


def _parts(path: str, said: Mapping[str, Parameter]) -> Iterator[dict[str, Any]]:
    for name, _ in _PART.findall(path):
        if name in said:
            yield {**_parameter(said[name]), "required": True}
        else:
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "description": PARTS.get(name, f"Part {name!r} of the path."),
                "schema": {"type": "string", "minLength": 1},
            }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = dict(parameter.schema)
    if parameter.repeated:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.says,
        "schema": schema,
    }


def _tag_of(path: str) -> str:
    parts = path.removeprefix("/api/v1/").strip("/").split("/")
    return parts[0] if path.startswith("/api/v1/") else "health"


def _name_of(operation: Operation) -> str:
    words = re.findall(r"\w+", _PART.sub(r"by \1", operation.path.removeprefix("/api/v1")))
    return "_".join((operation.method.lower(), *words)).replace(".", "_")
