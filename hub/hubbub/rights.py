"""What a principal may publish: scopes for subjects and addresses, for work, and for answers.

One place for every way in. `intake` reads scopes; here stands what an envelope needs of them:

* its subject `publish:`, or each address in `to` `direct:`;
* its `reply_to` `direct:` too, unless the publisher itself or a stream of its own gets the answers;
* work (`hubbub.task.request.v1`, `.result.v1`, `.update.v1`) `tasks`, or `tasks:` for its type;
* an answer without `to` that its publisher was given what it answers, or `direct:`.

The subjects `tasks.<task_type>.<state>` are the hub's own: only `admin` may publish there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hubbub.directory import Directory
from hubbub.envelope import TASK_REQUEST, TASK_RESULT, TASK_UPDATE, Envelope
from hubbub.errors import ForbiddenError, InvalidError
from hubbub.intake import allowed, is_hubs_own, may, scoped
from hubbub.planning import Planner
from hubbub.subjects import escape, unescape
from hubbub.tasks import read_request
from hubbub.values import EVERYTHING, Endpoint, Principal

__all__ = [
    "OF_WORK",
    "Rights",
    "check_accepts",
    "may_work",
    "task_types_of",
    "tasks_shown",
    "works",
]

OF_WORK: Final = frozenset({TASK_REQUEST, TASK_RESULT, TASK_UPDATE})
_WHOLE: Final = frozenset({"*", ">"})


def works(principal: Principal) -> bool:
    """Tell whether a principal has to do with any tasks."""
    return not principal.scopes.isdisjoint(("admin", "tasks")) or bool(
        scoped(principal.scopes, "tasks")
    )


def task_types_of(principal: Principal) -> frozenset[str] | None:
    """Return the task types that a principal's scopes name; None for all of them."""
    scopes = principal.scopes
    if not scopes.isdisjoint(("admin", "tasks")):
        return None
    patterns = scoped(scopes, "tasks")
    if not _WHOLE.isdisjoint(patterns):
        return None
    return frozenset(unescape(pattern) for pattern in patterns if "." not in pattern)


def may_work(principal: Principal, task_type: str) -> None:
    """Check that a principal may submit, take and end tasks of a type.

    Raises:
        ForbiddenError: it may not.
    """
    if not principal.scopes.isdisjoint(("admin", "tasks")):
        return
    token = escape(task_type)
    if not allowed(principal.scopes, "tasks", token):
        raise ForbiddenError(
            f"{principal.name!r} may not have to do with tasks of the type {task_type[:100]!r}; "
            f"it needs the scope 'tasks' or 'tasks:{token[:100]}'"
        )


def tasks_shown(principal: Principal, task_type: str | None) -> frozenset[str] | None:
    """Return the task types that a principal may look at; None for all of them.

    Args:
        task_type: The only one that is asked for.

    Raises:
        ForbiddenError: that one is not covered.
    """
    if "read" in principal.scopes:
        return None if task_type is None else frozenset((task_type,))
    if task_type is not None:
        may_work(principal, task_type)
        return frozenset((task_type,))
    return task_types_of(principal)


def check_accepts(
    principal: Principal, accepts: Iterable[str], task_types: Iterable[str] | None
) -> None:
    """Check that a principal may be the worker that it wants to be.

    Who declares no task types, or `"*"`, may get any: that needs the scope for all of them.

    Raises:
        ForbiddenError: it may not.
    """
    if task_types is None and TASK_REQUEST not in accepts:
        return
    types = (EVERYTHING,) if task_types is None else tuple(task_types)
    for task_type in types:
        if task_type != EVERYTHING:
            may_work(principal, task_type)
        elif task_types_of(principal) is not None:
            raise ForbiddenError(
                f"{principal.name!r} may not take tasks of all types; it needs the scope 'tasks', "
                "or name those it may take in ?task_types="
            )


class Rights:
    """Tells what principals may publish."""

    def __init__(self, directory: Directory, planner: Planner) -> None:
        self._directory = directory
        self._planner = planner

    def check(self, envelope: Envelope, principal: Principal, *, alone: bool = True) -> None:
        """Check everything that can be known without the store.

        Args:
            alone: It is no member of a batch.

        Raises:
            ForbiddenError: a scope is missing.
            InvalidError: work that cannot be read, or a result that goes elsewhere.
        """
        if envelope.type in OF_WORK:
            self._check_work(envelope, principal)
            if envelope.type == TASK_RESULT:
                _check_result(envelope, alone=alone)
                return  # its subject is not used, nor whom it names
        if envelope.to:
            for address in envelope.to:
                may(principal, "direct", address)
            if is_hubs_own(envelope.subject):
                may(principal, "publish", envelope.subject)
        else:
            may(principal, "publish", envelope.subject)
        reply_to = envelope.reply_to
        if reply_to is not None and not self.is_own(reply_to, principal):
            may(principal, "direct", reply_to)

    def _check_work(self, envelope: Envelope, principal: Principal) -> None:
        if envelope.type == TASK_REQUEST:
            may_work(principal, read_request(envelope).task_type)
        elif not works(principal):
            raise ForbiddenError(
                f"{principal.name!r} may not say anything of tasks; it needs the scope 'tasks' "
                "or 'tasks:PATTERN'"
            )

    def may_write(self, address: str, principal: Principal) -> bool:
        """Tell whether a principal may address an endpoint, or is it."""
        scopes = principal.scopes
        return (
            "admin" in scopes
            or allowed(scopes, "direct", address)
            or self.is_own(address, principal)
        )

    def is_own(self, address: str, principal: Principal) -> bool:
        """Tell whether an address is the principal itself, or a stream that it made."""
        if address == principal.source:
            return True
        known = self._directory.get(address)
        return known is not None and bool(principal.id) and known.endpoint.owner == principal.id

    def reaches(self, envelope: Envelope, principal: Principal) -> bool:
        """Tell whether an envelope was for the principal, by its `to` or by the table as it is."""
        if envelope.to:
            return any(self.is_own(address, principal) for address in envelope.to)
        return any(
            self._planner.may_reach(envelope, endpoint)
            for endpoint in self._endpoints_of(principal)
        )

    def _endpoints_of(self, principal: Principal) -> Iterator[Endpoint]:
        """Yield the endpoint that a principal is, then the streams that it made."""
        own = self._directory.get(principal.source)
        if own is not None:
            yield own.endpoint
        if principal.id:
            for known in self._directory:
                if known.endpoint.owner == principal.id and known is not own:
                    yield known.endpoint


def _check_result(envelope: Envelope, *, alone: bool) -> None:
    """Check that a result can be taken: it ends a task, and goes to who asked for that.

    Raises:
        InvalidError: it cannot.
    """
    if envelope.to:
        raise InvalidError("a task's result goes to who asked for it; leave `to` out")
    if not alone:
        raise InvalidError("a task's result is no member of a batch; publish it alone")
