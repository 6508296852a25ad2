"""What ends a command: a message for a person, and an exit code for a script."""

from __future__ import annotations

import sys
from typing import Final

from hubbub.errors import ConfigError, HubError

__all__ = ["FAILED", "INTERRUPTED", "OK", "USAGE", "ApiError", "CommandError", "report"]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class CommandError(HubError):
    """A command that could not do what it was asked.

    Attributes:
        exit_code: 1, or 2 when the command line itself is wrong.
    """

    code = "command"

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class ApiError(CommandError):
    """The hub answered with an error.

    Attributes:
        status: HTTP status of the answer.
        kind: Last part of the problem's `type`, such as `not_found`; empty when there is none.
    """

    code = "api"

    def __init__(self, message: str, *, status: int, kind: str = "") -> None:
        self.status = status
        self.kind = kind
        super().__init__(message)


def report(error: HubError) -> int:
    """Write an error to standard error, and return the exit code."""
    lines = error.problems if isinstance(error, ConfigError) else [f"hubbub: {error.message}"]
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return error.exit_code if isinstance(error, CommandError) else FAILED
