"""The HTTP side of the hub: its API, health, metrics, and the paths of adapters and plugins.

The names here are for plugins that have paths of their own.
"""

from hubbub.web.bodies import ClientGoneError, UnreadBodyError, read_body
from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.mounting import operation_routes
from hubbub.web.pages import limit_of, number_after, page, text_after, time_in

__all__ = [
    "Call",
    "ClientGoneError",
    "Operation",
    "Reply",
    "Spec",
    "UnreadBodyError",
    "limit_of",
    "number_after",
    "operation_routes",
    "page",
    "read_body",
    "text_after",
    "time_in",
]
