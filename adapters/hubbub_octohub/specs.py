"""What each operation below `/api/octohub` takes and gives, for the description of the API."""

from __future__ import annotations

from typing import Final

from hubbub.values import TaskState
from hubbub.web import CURSOR, LIMIT, Parameter, Spec
from hubbub_octohub import shapes

__all__ = [
    "CHANGE_NODE",
    "CREATE_USER",
    "DELETE_USER",
    "ENDED",
    "FORGET_NODE",
    "KICK",
    "NODES",
    "RETRIED",
    "SUBMIT",
    "TASK",
    "TASKS",
    "USERS",
]


def _part(name: str, says: str) -> Parameter:
    return Parameter(name, says, {"type": "string", "minLength": 1}, "path")


def _filter(name: str, says: str) -> Parameter:
    return Parameter(name, says, {"type": "string"})


TASK_ID: Final = (_part("task_id", "Id of a task."),)
PC_ID: Final = (_part("pc_id", "Id of a node; a rule may be about all that begin so: `node_*`."),)
USER: Final = (_part("user", "Id or email address of a user."),)
FILTERS: Final = (
    Parameter("state", "Tasks in this state.", {"type": "string", "enum": list(TaskState)}),
    _filter("task_type", "Tasks of this type."),
    _filter("node", "Tasks of this node."),
)

SUBMIT: Final = Spec(
    answers=dict.fromkeys((200, 202), shapes.OctohubTaskSubmitted),
    body=shapes.OctohubTaskIn,
    problems=(404, 409, 422, 429),
)
TASKS: Final = Spec(answers={200: shapes.OctohubTaskList}, parameters=(*FILTERS, LIMIT, CURSOR))
TASK: Final = Spec(answers={200: shapes.OctohubTaskDetail}, parameters=TASK_ID, problems=(404,))
ENDED: Final = Spec(answers={200: shapes.OctohubTask}, parameters=TASK_ID, problems=(404, 409))
RETRIED: Final = Spec(answers={202: shapes.OctohubTask}, parameters=TASK_ID, problems=(404, 409))

NODES: Final = Spec(answers={200: shapes.NodeList}, parameters=(CURSOR,))
CHANGE_NODE: Final = Spec(
    answers={200: shapes.NodeRuleView}, body=shapes.NodeRuleIn, parameters=PC_ID
)
FORGET_NODE: Final = Spec(answers={204: None}, parameters=PC_ID, problems=(400, 404))
KICK: Final = Spec(answers={200: shapes.NodeKicked}, parameters=PC_ID, problems=(400, 404))

USERS: Final = Spec(answers={200: shapes.UserList}, parameters=(LIMIT, CURSOR))
CREATE_USER: Final = Spec(answers={201: shapes.UserView}, body=shapes.UserIn, problems=(409, 429))
DELETE_USER: Final = Spec(answers={204: None}, parameters=USER, problems=(404,))
