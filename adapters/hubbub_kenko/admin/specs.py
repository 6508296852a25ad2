"""What the paths of these features take and give, for the description of the API."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from hubbub.web import CURSOR, LIMIT, Parameter, Spec
from hubbub_kenko.admin.runners import LOCAL
from hubbub_kenko.admin.simulator import Said
from hubbub_kenko.operations import part
from hubbub_kenko.shapes import KenkoPage, Time

__all__ = [
    "CONTENT",
    "CONVERSATION",
    "DEPLOY",
    "DEPLOYMENT",
    "DEPLOYMENTS",
    "HALT",
    "INVITE",
    "LOG",
    "PACKAGE",
    "PACKAGES",
    "REMOVE_DEPLOYMENT",
    "REMOVE_PACKAGE",
    "REMOVE_RUNNER",
    "RUN",
    "RUNNERS",
    "SIMULATE",
    "UPLOAD",
    "Deploy",
    "Invitation",
]

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Labels = Annotated[dict[Text, Annotated[str, Meta(max_length=256)]], Meta(max_length=32)]


class Deploy(msgspec.Struct, forbid_unknown_fields=True):
    """A package to put on a runner."""

    package_id: Text
    runner_id: Text = LOCAL
    env: dict[str, str] = {}
    autostart: bool = False


class Invitation(msgspec.Struct, forbid_unknown_fields=True):
    """A runner that may join."""

    name: Text = "runner"
    labels: Labels = {}


# Answers


class KenkoSaid(msgspec.Struct, forbid_unknown_fields=True):
    """What came of something that the virtual user said."""

    message_id: str
    trace_id: str
    session: str
    outcome: str


class KenkoMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of a simulated conversation."""

    id: str | None
    session: str
    source_adapter: str
    direction: Literal["in", "out"]
    user_id: str | None
    app: str | None
    content: str
    lang: str
    trace_id: str
    in_reply_to: str | None
    latency_ms: float | None
    time: Time


class KenkoManifest(msgspec.Struct, forbid_unknown_fields=True):
    """What a package says of itself; variables by name only."""

    name: str
    version: str
    entry: str
    env: list[str]
    labels: dict[str, str]


class KenkoPackage(msgspec.Struct, forbid_unknown_fields=True):
    """An uploaded application."""

    id: str
    name: str
    version: str
    sha256: str
    size: int
    manifest: KenkoManifest
    created_at: Time


class KenkoDeployment(msgspec.Struct, forbid_unknown_fields=True):
    """A package on a runner; variables by name only."""

    id: str
    package_id: str
    runner_id: str
    env: list[str]
    desired: Literal["running", "stopped"]
    actual: Literal["stopped", "starting", "running", "backoff", "failed", "unknown"]
    pid: int | None
    restarts: int
    exit_code: int | None
    reason: str | None
    created_at: Time
    updated_at: Time


class KenkoOutputLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line that a deployment wrote."""

    number: int
    time: Time
    text: str


class KenkoRunner(msgspec.Struct, forbid_unknown_fields=True):
    """Who runs deployments; `local` is the hub itself."""

    id: str
    name: str
    labels: dict[str, str]
    cpu: float | None
    memory_total: int | None
    version: str
    connected: bool
    app_id: str | None
    last_seen: Time
    deployments: int


class KenkoInvited(msgspec.Struct, forbid_unknown_fields=True):
    """A runner that may join; its token is shown this once."""

    id: str
    name: str
    labels: dict[str, str]
    token: str


# Operations

SESSION: Final = part("session", "A group or a user.")
PACKAGE_ID: Final = part("id", "Id of a package.")
DEPLOYMENT_ID: Final = part("id", "Id of a deployment.")
RUNNER_ID: Final = part("id", "Id of a runner.")
SIGNED: Final = (
    Parameter("expires", "Until when the URL holds.", {"type": "string"}),
    Parameter("signature", "What it was signed with.", {"type": "string"}),
)
PAGED: Final = (LIMIT, CURSOR)

SIMULATE: Final = Spec(answers={200: KenkoSaid}, body=Said, problems=(429,))
CONVERSATION: Final = Spec(
    answers={200: KenkoPage[KenkoMessage]}, parameters=(SESSION, *PAGED)
)  # fmt: skip

PACKAGES: Final = Spec(answers={200: KenkoPage[KenkoPackage]}, parameters=PAGED)
UPLOAD: Final = Spec(answers={201: KenkoPackage}, body=("application/zip", "multipart/form-data"))
PACKAGE: Final = Spec(answers={200: KenkoPackage}, parameters=(PACKAGE_ID,), problems=(404,))
REMOVE_PACKAGE: Final = Spec(answers={204: None}, parameters=(PACKAGE_ID,), problems=(404, 409))
CONTENT: Final = Spec(
    answers={200: "application/zip"}, parameters=(PACKAGE_ID, *SIGNED), problems=(403, 404)
)

DEPLOYMENTS: Final = Spec(answers={200: KenkoPage[KenkoDeployment]}, parameters=PAGED)
DEPLOY: Final = Spec(answers={201: KenkoDeployment}, body=Deploy, problems=(403, 404, 409, 504))
DEPLOYMENT: Final = Spec(
    answers={200: KenkoDeployment}, parameters=(DEPLOYMENT_ID,), problems=(404,)
)
RUN: Final = Spec(
    answers={200: KenkoDeployment},
    parameters=(DEPLOYMENT_ID,),
    problems=(403, 404, 409, 422, 504),
)
HALT: Final = Spec(answers={200: KenkoDeployment}, parameters=(DEPLOYMENT_ID,), problems=(404, 504))
REMOVE_DEPLOYMENT: Final = Spec(
    answers={204: None}, parameters=(DEPLOYMENT_ID,), problems=(404, 504)
)
LOG: Final = Spec(
    answers={200: KenkoPage[KenkoOutputLine]},
    parameters=(DEPLOYMENT_ID, *PAGED),
    problems=(404,),
)

RUNNERS: Final = Spec(answers={200: KenkoPage[KenkoRunner]})
INVITE: Final = Spec(answers={201: KenkoInvited}, body=Invitation, problems=(403,))
REMOVE_RUNNER: Final = Spec(answers={204: None}, parameters=(RUNNER_ID,), problems=(404,))
