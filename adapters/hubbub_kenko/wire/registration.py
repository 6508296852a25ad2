"""Registrations: what of one can be kept, and why one cannot be accepted."""

from __future__ import annotations

from typing import cast

import msgspec

from hubbub.errors import SubjectError
from hubbub.intake import has_control
from hubbub.subjects import check_pattern
from hubbub_kenko.wire.values import (
    CAPABILITIES,
    MAX_CONCURRENCY,
    MAX_NAME,
    MAX_SUBSCRIPTIONS,
    MAX_TASK_TYPES,
    MAX_TEXT,
    Auth,
    BadRegister,
    Register,
)

__all__ = ["read_auth", "read_register"]


class _Given(msgspec.Struct):
    """The members of a registration apart from its name, of the kinds they must have."""

    version: str = ""
    description: str = ""
    author: str = ""
    lang: str = "zh-CN"
    capabilities: list[str] = []
    task_types: list[str] | None = None
    join_token: str = ""
    standby: bool = False
    subscribe: list[str] | None = None
    concurrency: int = 16


def read_register(value: object) -> Register | BadRegister:
    """Read the data of a registration, decoded."""
    if not isinstance(value, dict):
        return BadRegister("invalid_data", "data must be an object with a text `name`")
    members = cast("dict[str, object]", value)
    lang = members.get("lang")
    speaks = lang if isinstance(lang, str) and lang else None
    name = members.get("name")
    if not (isinstance(name, str) and name.strip()):
        return BadRegister("invalid_name", "name must be a non-empty string", speaks)
    if len(name) > MAX_NAME:
        return BadRegister("invalid_name", f"name has over {MAX_NAME} characters", speaks)
    if has_control(name):
        return BadRegister("invalid_name", "name has a control character", speaks)
    try:
        given = msgspec.convert(members, _Given)
    except msgspec.ValidationError as failed:
        return BadRegister("invalid_data", str(failed), speaks)
    problem = _problem(given)
    if problem is not None:
        return BadRegister("invalid_data", problem, speaks)
    return Register(
        name=name,
        version=given.version,
        description=given.description,
        author=given.author,
        lang=given.lang or "zh-CN",
        capabilities=CAPABILITIES.intersection(given.capabilities),
        task_types=None if given.task_types is None else tuple(given.task_types),
        join_token=given.join_token,
        standby=given.standby,
        subscribe=None if given.subscribe is None else tuple(given.subscribe),
        concurrency=given.concurrency,
        speaks=speaks,
    )


def _problem(given: _Given) -> str | None:
    """Return what of a registration is over its limit, or cannot be kept."""
    for member in ("version", "description", "author", "lang", "join_token"):
        text = getattr(given, member)
        if len(text) > MAX_TEXT or "\x00" in text:
            return f"{member} has over {MAX_TEXT} characters, or a NUL"
    if not 1 <= given.concurrency <= MAX_CONCURRENCY:
        return f"concurrency is {given.concurrency}, it must be 1 to {MAX_CONCURRENCY}"
    if len(given.subscribe or ()) > MAX_SUBSCRIPTIONS:
        return f"subscribe has over {MAX_SUBSCRIPTIONS} patterns"
    if len(given.task_types or ()) > MAX_TASK_TYPES:
        return f"task_types has over {MAX_TASK_TYPES} types"
    try:
        for pattern in given.subscribe or ():
            check_pattern(pattern)
    except SubjectError as failed:
        return f"subscribe: {failed}"
    return None


def read_auth(argument: object, *, session_id: str) -> Auth:
    """Read the argument of the Socket.IO event `auth`, decoded: of any type, or None for none.

    An object with a `name` is a registration. Anything else is one without: the name is then made
    of the session's id, and a text is the access token.
    """
    if isinstance(argument, dict) and "name" in argument:
        return Auth(read_register(cast("object", argument)))
    token = argument if isinstance(argument, str) else None
    return Auth(Register(name=f"socketio-{session_id[:8]}"), token)
