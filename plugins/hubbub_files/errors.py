"""What may not be done with files, each with a code of its own."""

from __future__ import annotations

from hubbub.errors import ForbiddenError

__all__ = ["OutsideError", "PrivateError", "ReadOnlyError"]


class OutsideError(ForbiddenError):
    """A path that leads out of its root."""

    code = "outside_root"


class PrivateError(ForbiddenError):
    """A file that is never shown: the database, a token, a secret."""

    code = "private_file"

    def __init__(self) -> None:
        super().__init__("this file is private to the hub; it is not shown and not changed here")


class ReadOnlyError(ForbiddenError):
    """Nothing may be changed."""

    code = "read_only"

    def __init__(self) -> None:
        super().__init__("files may only be read here; set plugins.files.writable = true")
