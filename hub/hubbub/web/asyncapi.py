"""The description of what moves (AsyncAPI 3.0): the live routing table, and the stream protocol.

Pure: routes and types in, a document out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, get_args

from hubbub.envelope import CHAT_MESSAGE, EVENT, PRESENCE, TASK_REQUEST, TASK_RESULT, TASK_UPDATE
from hubbub.values import Route
from hubbub.web.problems import Problem
from hubbub.web.schemas import CANONICAL, Components, canonical_schemas, components
from hubbub.web.shapes import Event
from hubbub.web.sockets import frames

__all__ = ["asyncapi"]

AT: Final = "#/components/schemas/"
MESSAGES: Final = "#/components/messages/"
STREAM: Final = "stream"

TYPE_OF_SUBJECT: Final = (
    (re.compile(r"tasks\.[^.]+\.request|relay\..*task.*"), (TASK_REQUEST,)),
    (re.compile(r"tasks\..*"), (TASK_REQUEST, TASK_UPDATE, TASK_RESULT)),
    (re.compile(r"presence\..*"), (PRESENCE,)),
)
"""Which canonical types a subject of the hub's own carries; of others nobody knows."""


def asyncapi(routes: Iterable[Route], *, version: str, host: str) -> dict[str, Any]:
    """Return the description of the channels that the table has now."""
    known = [route for route in routes if route.origin != "private"]
    channels: dict[str, Any] = {
        f"route {route.name}": _channel(route)
        for route in sorted(known, key=lambda route: route.name)
    }
    channels[STREAM] = _stream_channel()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hubbub",
            "version": version,
            "description": "Channels are the patterns of the routing table as it is now; "
            "the channel `stream` is the hub's own endpoint protocol over WebSocket.",
        },
        "servers": {
            "hub": {
                "host": host,
                "protocol": "ws",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": {**_envelopes(), **_frames()},
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _channel(route: Route) -> dict[str, Any]:
    types = route.types or next(
        (types for pattern, types in TYPE_OF_SUBJECT if pattern.fullmatch(route.match)),
        (EVENT, *CANONICAL),
    )
    return {
        "address": route.match,
        "title": route.name,
        "description": f"To {', '.join(route.to)} ({route.deliver}), from {route.origin}.",
        "messages": {
            _key(name): {"$ref": MESSAGES + _key(name)}
            for name in types
            if name in CANONICAL or name == EVENT
        },
    }


def _stream_channel() -> dict[str, Any]:
    return {
        "address": "/api/v1/stream",
        "title": "The hub's own endpoint protocol",
        "description": "JSON text frames, one message each.",
        "messages": {name: {"$ref": MESSAGES + name} for name in _frames()},
    }


def _operations(channels: dict[str, Any]) -> dict[str, Any]:
    """Return what an application does: it sends into a route, and both ways on the stream."""
    found: dict[str, Any] = {
        f"send {name}": {"action": "send", "channel": {"$ref": f"#/channels/{_escaped(name)}"}}
        for name in channels
        if name != STREAM
    }
    stream = {"$ref": f"#/channels/{STREAM}"}
    for action, names in (("send", _inbound()), ("receive", _outbound())):
        found[f"{action} frames"] = {
            "action": action,
            "channel": stream,
            "messages": [{"$ref": f"#/channels/{STREAM}/messages/{name}"} for name in names],
        }
    return found


def _envelopes() -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for name in (EVENT, *CANONICAL):
        data: dict[str, Any] = {"$ref": AT + name} if name in CANONICAL else {}
        messages[_key(name)] = {
            "name": name,
            "title": name,
            "contentType": "application/cloudevents+json",
            "payload": {
                "allOf": [
                    {"$ref": AT + "Event"},
                    {
                        "type": "object",
                        "properties": {"type": {"const": name}, "data": data},
                    },
                ]
            },
        }
    messages[_key(CHAT_MESSAGE)]["summary"] = "Not checked at publish."
    return messages


def _inbound() -> dict[str, type]:
    """Return the frames a client may send, by their `type`."""
    return {str(model.__struct_config__.tag): model for model in get_args(frames.Frame)}


def _outbound() -> dict[str, dict[str, Any]]:
    """Return the frames a client gets, by their `type`."""
    ref = {"type": ["string", "integer", "null"]}
    event, problem = {"$ref": AT + "Event"}, {"$ref": AT + "Problem"}
    return {
        "hello": {"endpoint": {"type": "string"}, "resumed": {"type": "boolean"}},
        "envelope": {"delivery": {"type": "integer"}, "envelope": event},
        "accepted": {
            "ref": ref,
            "id": {"type": "string"},
            "deliveries": {"type": "integer", "minimum": 0},
            "late": {"const": True},
        },
        "refused": {"ref": ref, "problem": problem},
        "reply": {"ref": ref, "envelope": event},
        "error": {"problem": problem},
    }


_SOMETIMES: Final = frozenset({"late"})
"""Members that a frame to a client may lack."""


def _frames() -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for name, model in _inbound().items():
        messages[name] = {
            "name": name,
            "summary": (model.__doc__ or "").split("\n", 1)[0],
            "payload": {"$ref": AT + model.__name__},
        }
    for name, members in _outbound().items():
        messages[name] = {
            "name": name,
            "payload": {
                "type": "object",
                "required": ["type", *(one for one in members if one not in _SOMETIMES)],
                "properties": {"type": {"const": name}, **members},
            },
        }
    return messages


def _schemas() -> Components:
    _, named = components([Event, Problem, *_inbound().values()], at=AT)
    return {**named, **canonical_schemas(at=AT)}


def _key(name: str) -> str:
    """Write a type as the key of a component, which may have no dots of every kind."""
    return name.replace(".", "_")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
