"""Hubbub: one message hub, many protocols, one routing table.

The names here are what plugins and adapters import; everything else may change.
"""

from hubbub.conversion import Converter
from hubbub.envelope import Envelope
from hubbub.errors import Reject, Retry
from hubbub.hookspecs import hookimpl
from hubbub.ports import Adapter
from hubbub.ports import HubApi as Hub
from hubbub.transforms import Transform
from hubbub.values import Endpoint, Receipt, Route

__all__ = [
    "Adapter",
    "Converter",
    "Endpoint",
    "Envelope",
    "Hub",
    "Receipt",
    "Reject",
    "Retry",
    "Route",
    "Transform",
    "hookimpl",
]
