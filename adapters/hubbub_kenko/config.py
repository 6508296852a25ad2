"""The table `[adapters.kenko]` of hub.toml."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from hubbub.config import AdapterSettings, Duration, Secret, Size, WebOrigin

__all__ = ["KenkoSettings"]


def _path(path: str) -> str:
    if not path.startswith("/") or "{" in path:
        raise ValueError('should begin with "/", such as "/ws"')
    return path


def _folder(path: str) -> str:
    if _path(path) == "/" or path.endswith("/"):
        raise ValueError('should not end with "/", such as "/socket.io"')
    return path


class KenkoSettings(AdapterSettings):
    """KenkoGo applications, over plain WebSocket and over Socket.IO."""

    ORIGINS_KEY: ClassVar[str | None] = "origins"

    paths: tuple[Annotated[str, AfterValidator(_path)], ...] = Field(
        default=("/", "/ws"), description="Paths of plain WebSocket."
    )
    socketio: bool = Field(default=True, description="Whether Socket.IO is served too.")
    socketio_path: Annotated[str, AfterValidator(_folder)] = Field(
        default="/socket.io", description="Path all Socket.IO requests begin with."
    )
    access_token: Secret = Field(
        default=Secret(""),
        description="What applications must show to connect. When empty only local ones may, which "
        "show nothing. May be a secret file.",
    )
    open: bool = Field(
        default=False,
        description="Whether everybody may connect while there is no `access_token`; without "
        "either, KenkoGo does not start where other machines reach it.",
    )
    origins: tuple[WebOrigin, ...] = Field(
        default=(),
        description="Web origins whose pages may use KenkoGo's paths, beside those of "
        "`hub.origins`, such as `https://app.example`.",
    )
    auto_start: bool = Field(
        default=True,
        description="Whether an application is sent messages as soon as it has registered; else "
        "somebody starts it.",
    )
    heartbeat_interval: Duration = Field(
        default=30.0, gt=0, description="How often an application promises to be heard."
    )
    heartbeat_grace: Duration = Field(
        default=15.0, description="How much longer it is waited for before it is disconnected."
    )
    heartbeat_reply: bool = Field(
        default=False, description="Whether a heartbeat is answered with a heartbeat."
    )
    register_timeout: Duration = Field(
        default=30.0, gt=0, description="How long a client may stay without registering."
    )
    max_clients: int = Field(
        default=1000, ge=1, description="Clients connected at once, registered or not."
    )
    max_apps: int | None = Field(
        default=None,
        ge=1,
        description="Applications registered at once; one more is refused, and may try again. "
        "Unset there may be as many as clients.",
    )
    max_message_bytes: Size = Field(
        default=1024**2, ge=1, description="Largest message of a client."
    )
    queue_size: int = Field(
        default=256,
        ge=1,
        description="Messages that may wait for one application or be under way to it before it "
        "is paused.",
    )
    ack_timeout: Duration = Field(
        default=30.0,
        gt=0,
        description="How long an application that acknowledges may take before it is sent the "
        "message again.",
    )
    max_redeliver: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="How often a message is sent to an application that acknowledges, in all.",
    )
    files_roots: tuple[str, ...] | None = Field(
        default=None,
        description="Roots of the plugin `files` that are shown below `/api/kenko/files`; unset it "
        "is all of them.",
    )
    files_writable: bool | None = Field(
        default=None,
        description="Whether files may be changed below `/api/kenko/files`; unset it is as "
        "`plugins.files.writable` says.",
    )
    runners: bool = Field(
        default=False,
        description="Whether uploaded applications may be run, by this hub or by runners.",
    )

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        """Let own listeners take the largest message, whatever `limits.frame` says by default."""
        if self.limits.frame < self.max_message_bytes:
            wider = self.limits.model_copy(update={"frame": self.max_message_bytes})
            object.__setattr__(self, "limits", wider)
        return self

    @property
    def frame_bytes(self) -> int:
        """The largest message of a WebSocket."""
        return self.max_message_bytes

    @property
    def sent_bytes(self) -> int:
        """The largest thing that a client may send at once."""
        return self.max_message_bytes
