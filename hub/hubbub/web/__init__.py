"""The HTTP side of the hub: its API, health, metrics, and the paths of adapters and plugins.

The names here are for adapters and plugins that have paths of their own.
"""

from hubbub.web.auth import peer_of
from hubbub.web.bodies import ClientGoneError, UnreadBodyError, read_body
from hubbub.web.calls import ANYONE, OPEN, Call, Operation, Reply, Spec
from hubbub.web.decoding import bearer_of, header, parse_query, traceparent
from hubbub.web.encoding import Listing, Page, Turns, in_portions, send_portions
from hubbub.web.inputs import CURSOR, LIMIT
from hubbub.web.manners import Manners, in_room, while_up
from hubbub.web.mounting import operation_routes
from hubbub.web.pages import limit_of, number_after, page, text_after, time_in
from hubbub.web.problems import status_of
from hubbub.web.request_guard import linkable
from hubbub.web.request_trust import is_local
from hubbub.web.specs import Parameter

__all__ = [
    "ANYONE",
    "CURSOR",
    "LIMIT",
    "OPEN",
    "Call",
    "ClientGoneError",
    "Listing",
    "Manners",
    "Operation",
    "Page",
    "Parameter",
    "Reply",
    "Spec",
    "Turns",
    "UnreadBodyError",
    "bearer_of",
    "header",
    "in_portions",
    "in_room",
    "is_local",
    "limit_of",
    "linkable",
    "number_after",
    "operation_routes",
    "page",
    "parse_query",
    "peer_of",
    "read_body",
    "send_portions",
    "status_of",
    "text_after",
    "time_in",
    "traceparent",
    "while_up",
]
