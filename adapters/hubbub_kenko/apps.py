"""The applications that are registered now, and what the hub may do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from hubbub.errors import NotFoundError
from hubbub_kenko.app import App
from hubbub_kenko.wire import BadRegister, Register, RunnerOutput

__all__ = ["NO_RUNNERS", "App", "Apps"]

NO_RUNNERS: Final = BadRegister("unauthorized", "the join token of this runner is not valid")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ResultOf = Callable[[App, dict[str, Any]], None]
"""Takes the `data` of a `runner.result` frame."""

OutputOf = Callable[[App, RunnerOutput], None]

AppOf = Callable[[App], None]


class Apps:
    """All of them, by id: names repeat.

    Attributes:
        admits_runner: Tells why an application with the capability `runner` may not register;
            None refuses all.
        on_joined: Called for each one that registered; `on_left` when it is gone.
        on_result: Called with the `data` of each `runner.result`.
        on_output: Called with each `runner.output`.
    """

    def __init__(self) -> None:
        self._apps: dict[str, App] = {}
        self.admits_runner: Callable[[Register], BadRegister | None] | None = None
        self.on_joined: list[AppOf] = []
        self.on_left: list[AppOf] = []
        self.on_result: list[ResultOf] = []
        self.on_output: list[OutputOf] = []

    def __len__(self) -> int:
        return len(self._apps)

    def list(self) -> list[App]:
        """Return all of them, the oldest first."""
        return list(self._apps.values())

    def find(self, app_id: str) -> App | None:
        """Return one; None when it is not registered now."""
        return self._apps.get(app_id)

    def get(self, app_id: str) -> App:
        """Return one.

        Raises:
            NotFoundError: it is not registered now.
        """
        app = self._apps.get(app_id)
        if app is None:
            raise NotFoundError(f"no application {app_id[:64]!r} is connected")
        return app

    async def send(self, app_id: str, kind: str, data: dict[str, Any]) -> None:
        """Write one frame to an application.

        Raises:
            NotFoundError: it is not registered now.
            ConnectionError: it has just left.
        """
        await self.get(app_id).send(kind, data)

    def add(self, app: App) -> None:
        """Take in one that registered."""
        self._apps[app.id] = app

    def joined(self, app: App) -> None:
        """Tell of one that registered, now that it knows that itself."""
        for told in self.on_joined:
            told(app)

    def remove(self, app: App) -> None:
        """Forget one that left."""
        if self._apps.pop(app.id, None) is not None:
            for told in self.on_left:
                told(app)

    def result(self, app: App, data: dict[str, Any]) -> None:
        """Hand on what a runner answered."""
        for told in self.on_result:
            try:
                told(app, data)
            except Exception:  # what a runner says must not end its connection
                log.exception("kenko.result_failed", app=app.id)

    def output(self, app: App, output: RunnerOutput) -> None:
        """Hand on what a runner's deployment wrote."""
        for told in self.on_output:
            told(app, output)
