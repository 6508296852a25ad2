"""Answers about applications, and what their paths take, for the description of the API."""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from hubbub.web import CURSOR, LIMIT, Spec
from hubbub_kenko.operations import part

__all__ = ["ACT", "FORGET", "LIST", "SHOW", "KenkoPage", "Time"]

T = TypeVar("T")

Time = Annotated[str, Meta(description="RFC 3339, UTC, microseconds")]


class KenkoPage(msgspec.Struct, Generic[T], forbid_unknown_fields=True):
    """A page of a list."""

    items: list[T]
    next: str | None


class KenkoApp(msgspec.Struct, forbid_unknown_fields=True):
    """An application that is registered, or was."""

    id: str
    name: str
    version: str
    description: str
    author: str
    lang: str
    capabilities: list[str]
    state: int
    state_name: str
    transport: str
    remote: str
    connected_at: Time | None
    registered_at: Time | None
    last_seen: Time | None
    disconnected_at: Time | None
    close_code: int | None


APP_ID: Final = (part("id", "Id of an application."),)

LIST: Final = Spec(answers={200: KenkoPage[KenkoApp]}, parameters=(LIMIT, CURSOR))
SHOW: Final = Spec(answers={200: KenkoApp}, parameters=APP_ID, problems=(404,))
FORGET: Final = Spec(answers={204: None}, parameters=APP_ID, problems=(404,))
ACT: Final = Spec(answers={200: KenkoApp}, parameters=APP_ID, problems=(404, 409))
