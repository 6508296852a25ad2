"""A node: connects to a hub over the OctoHub protocol, does tasks, and loses no result.

It imports nothing of the hub; what it needs is `httpx2` and `websockets`. A program of its own
needs three names: a function for each task type in `Handlers`, and then `hubbub node run
module:handlers`, or `asyncio.run(Node(settings, handlers).run())`.
"""

from hubbub_node.handlers import Handlers, current_task
from hubbub_node.node import Node
from hubbub_node.settings import NodeSettings
from hubbub_node.wire import Task

__all__ = ["Handlers", "Node", "NodeSettings", "Task", "current_task"]
