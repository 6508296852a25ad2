"""Bodies and answers of the paths of files, and what each of them takes and gives."""

from __future__ import annotations

from typing import Final

import msgspec

from hubbub.envelope import rfc3339
from hubbub.web import CURSOR, LIMIT, Parameter, Spec
from hubbub_files.folders import Entry

__all__ = [
    "LIST",
    "MAKE",
    "MOVE",
    "READ",
    "REMOVE",
    "WRITE",
    "Content",
    "Move",
    "NewFolder",
    "RootView",
    "entry_view",
]


class NewFolder(msgspec.Struct, forbid_unknown_fields=True):
    """A folder to make."""

    path: str


class Move(msgspec.Struct, forbid_unknown_fields=True):
    """Something to move."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")


class Content(msgspec.Struct, forbid_unknown_fields=True):
    """A file to write, as text."""

    path: str
    content: str


class RootView(msgspec.Struct, forbid_unknown_fields=True):
    """A folder that is shown."""

    name: str
    path: str
    kind: str
    writable: bool


class EntryView(msgspec.Struct, forbid_unknown_fields=True):
    """What is in a folder: a `file`, a `folder`, a `link` or something `other`."""

    name: str
    path: str
    kind: str
    size: int
    modified: str


class RootList(msgspec.Struct, forbid_unknown_fields=True):
    """All roots."""

    items: list[RootView]
    next: None


class EntryList(msgspec.Struct, forbid_unknown_fields=True):
    """A page of a folder, folders first."""

    items: list[EntryView]
    next: str | None


def entry_view(entry: Entry) -> EntryView:
    """Return an entry as it is shown."""
    modified = rfc3339(entry.modified_us)
    return EntryView(entry.name, entry.path, entry.kind, entry.size, modified)


PATH: Final = Parameter("path", "As `<root>/<folder>/<file>`.", {"type": "string"})
OFFSET: Final = Parameter("offset", "The first byte.", {"type": "integer", "minimum": 0})
LENGTH: Final = Parameter("length", "Bytes, at most.", {"type": "integer", "minimum": 0})
RAW: Final = "application/octet-stream"

LIST: Final = Spec(
    answers={200: (RootList, EntryList)}, parameters=(PATH, LIMIT, CURSOR), problems=(404,)
)
REMOVE: Final = Spec(answers={204: None}, parameters=(PATH,), problems=(404, 409))
READ: Final = Spec(
    answers={200: ("text/plain", RAW)}, parameters=(PATH, OFFSET, LENGTH), problems=(404, 413)
)
WRITE: Final = Spec(
    answers=dict.fromkeys((200, 201), EntryView),
    body=(Content, RAW),
    parameters=(PATH,),
    problems=(404, 409),
)
MAKE: Final = Spec(answers={201: EntryView}, body=NewFolder, problems=(404, 409))
MOVE: Final = Spec(answers={200: EntryView}, body=Move, problems=(404, 409))
