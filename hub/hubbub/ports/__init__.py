"""The seams between the rooms, and between the hub and its plugins, as protocols.

Everybody imports from here; the modules below hold one seam each.
"""

from hubbub.ports.adapters import (
    Adapter,
    GuardedAdapter,
    HttpAdapter,
    OpenAccess,
    PeerAdapter,
)
from hubbub.ports.credentials import Credentials
from hubbub.ports.engine import Engine, EngineLimits, Kept, Taken, Verdict
from hubbub.ports.hub import HubApi
from hubbub.ports.peers import Link, Listener
from hubbub.ports.records import Change, Claim, ClaimKind, Planned, Record, Row, RowsOf, Stored
from hubbub.ports.time import Clock, Timer
from hubbub.ports.work import Finished, Leased, Work

__all__ = [
    "Adapter",
    "Change",
    "Claim",
    "ClaimKind",
    "Clock",
    "Credentials",
    "Engine",
    "EngineLimits",
    "Finished",
    "GuardedAdapter",
    "HttpAdapter",
    "HubApi",
    "Kept",
    "Leased",
    "Link",
    "Listener",
    "OpenAccess",
    "PeerAdapter",
    "Planned",
    "Record",
    "Row",
    "RowsOf",
    "Stored",
    "Taken",
    "Timer",
    "Verdict",
    "Work",
]
