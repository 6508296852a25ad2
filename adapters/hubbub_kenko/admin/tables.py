"""Tables of the simulator, of packages, deployments and runners."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text
from sqlmodel import Field, SQLModel

from hubbub.store.tables import ROW_NUMBER

__all__ = ["KenkoDeploymentRow", "KenkoMessageRow", "KenkoPackageRow", "KenkoRunnerRow"]


class KenkoMessageRow(SQLModel, table=True):
    """One message of a simulated conversation.

    Attributes:
        app: Name of the application that answered; empty for what the simulator said.
        latency_us: How long after what it answers; of answers only.
    """

    __tablename__ = "kenko_message"  # pyright: ignore[reportAssignmentType]
    __table_args__ = (
        Index("ix_kenko_message_session", "session", "seq"),
        {"info": {"prune_by": "at_us"}},
    )

    seq: int | None = Field(default=None, primary_key=True, sa_type=ROW_NUMBER)
    id: str
    session: str
    source_adapter: str
    user_id: str
    app: str = ""
    content: str = Field(sa_type=Text)
    lang: str
    trace_id: str
    in_reply_to: str | None = None
    latency_us: int | None = Field(default=None, sa_type=BigInteger)
    at_us: int = Field(sa_type=BigInteger)


class KenkoPackageRow(SQLModel, table=True):
    """One uploaded application; its zip is a file named by its digest."""

    __tablename__ = "kenko_package"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    sha256: str
    size: int = Field(sa_type=BigInteger)
    manifest: str = Field(sa_type=Text)
    created_us: int = Field(sa_type=BigInteger)


class KenkoDeploymentRow(SQLModel, table=True):
    """A package on a runner.

    Attributes:
        env: Variables of the process, as JSON; never shown.
        desired: `running` or `stopped`.
        actual: `stopped`, `starting`, `running`, `backoff`, `failed` or `unknown`.
    """

    __tablename__ = "kenko_deployment"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    package_id: str
    runner_id: str
    env: str = Field(sa_type=Text)
    desired: str
    actual: str
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    reason: str = ""
    created_us: int = Field(sa_type=BigInteger)
    updated_us: int = Field(sa_type=BigInteger)


class KenkoRunnerRow(SQLModel, table=True):
    """A runner that has joined: an application with the capability `runner`.

    Attributes:
        name: Its identity: a runner that comes back under its name is the same one.
        app_id: The application it is now; None while it is away.
        token_hash: SHA-256 of its join token.
    """

    __tablename__ = "kenko_runner"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    name: str
    labels: str = Field(sa_type=Text)
    cpu: float | None = None
    memory_total: int | None = Field(default=None, sa_type=BigInteger)
    version: str
    last_seen_us: int = Field(sa_type=BigInteger)
    app_id: str | None = None
    token_hash: str
