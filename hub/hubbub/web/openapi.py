"""The description of the HTTP API (OpenAPI 3.1), made of the table of operations. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Final, cast

from hubbub.web.calls import Operation, Parameter
from hubbub.web.problems import Problem
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


def openapi(operations: Iterable[Operation], *, version: str) -> dict[str, Any]:
    """Return the description of these operations."""
    known = list(operations)
    models = list(_models(known))
    refs, named = components([*models, Problem], at=AT)
    schema_of = dict(zip(map(id, models), refs, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for operation in known:
        path = _PART.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schema_of)
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


def _models(operations: Iterable[Operation]) -> Iterator[object]:
    seen: set[int] = set()
    for operation in operations:
        spec = operation.spec
        for model in _each((*spec.answers.values(), spec.body)):
            if model is not None and not isinstance(model, str) and id(model) not in seen:
                seen.add(id(model))
                yield model


def _each(models: Iterable[object]) -> Iterator[object]:
    for model in models:
        if isinstance(model, tuple):
            yield from cast("tuple[object, ...]", model)
        else:
            yield model


def _schema(model: object, schema_of: dict[int, Any]) -> dict[str, Any]:
    if isinstance(model, tuple):
        parts = cast("tuple[object, ...]", model)
        return {"anyOf": [schema_of[id(part)] for part in parts]}
    found: dict[str, Any] = schema_of[id(model)]
    return found


def _operation(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    spec = operation.spec
    described: dict[str, Any] = {
        "operationId": _name_of(operation),
        "summary": operation.says,
        "tags": [_tag_of(operation.path)],
        "parameters": [*_parts(operation.path), *map(_parameter, spec.parameters)],
        "responses": {
            **{
                str(status): _answer(status, model, schema_of)
                for status, model in spec.answers.items()
            },
            **{str(status): _problem(status) for status in _problems(operation)},
        },
    }
    if operation.scopes is None:
        described["security"] = []
    else:
        scopes = ", ".join(f"`{scope}`" for scope in operation.scopes) or "what it is about"
        described["description"] = f"Scope: {scopes}; `admin` is all of them."
    if spec.body is not None:
        described["requestBody"] = {
            "required": spec.body_needed,
            "content": {media: {"schema": _schema(spec.body, schema_of)} for media in spec.media},
        }
    return described


def _problems(operation: Operation) -> list[int]:
    spec = operation.spec
    found = set(spec.problems)
    if operation.scopes is not None:
        found |= {401, 403}
    if spec.body is not None:
        found |= {400, 413, 422}
    if spec.parameters:
        found.add(422)
    if operation.method != "GET":
        found.add(503)
    return sorted(found - set(spec.answers))


def _answer(status: int, model: object, schema_of: dict[int, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(model, str):
        said["content"] = {model: {"schema": {"type": "string"}}}
    elif model is not None:
        said["content"] = {JSON: {"schema": _schema(model, schema_of)}}
    return said


def _problem(status: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "description": SAYS[status],
        "content": {PROBLEM: {"schema": {"$ref": AT + "Problem"}}},
    }
    if status in (429, 503):
        said["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    return said


def _parts(path: str) -> Iterator[dict[str, Any]]:
    for name, _ in _PART.findall(path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARTS[name],
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
