"""The HTTP side of the hub: its API, health, metrics, and the paths of adapters and plugins.

The names here are for plugins that have paths of their own.
"""

from hubbub.web.calls import Call, Operation, Reply, Spec
from hubbub.web.mounting import operation_routes

__all__ = ["Call", "Operation", "Reply", "Spec", "operation_routes"]
