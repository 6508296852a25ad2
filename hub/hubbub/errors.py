"""Every error of the hub, as one family.

HubError
├── MalformedError        cannot be parsed                            (HTTP 400)
├── UnauthorizedError     no credential, or none that is known        (401)
├── ForbiddenError        a known credential that may not do this     (403)
│   └── NotGivenError     a result of a task that its endpoint never had
├── NotFoundError         no such thing                               (404)
├── ConflictError         not in this state                           (409)
│   └── IdReusedError     an id given before, with another body
├── TooLargeError         over a size limit                           (413)
├── InvalidError          parsed, but not valid                       (422)
│   ├── SubjectError      a subject, pattern or address is not valid
│   ├── RouteError        a route is not valid
│   └── KeyReusedError    an idempotency key given before, with another body
├── RateLimitedError      over a rate                                 (429)
│   └── BusyError         too many under way at once
├── UnavailableError      cannot now, may be tried again              (503)
│   ├── DrainingError     the hub is stopping
│   ├── MailboxFullError  a mailbox with policy `refuse` is full
│   ├── NoEndpointError   a request found nobody
│   └── StoreUnavailableError  the database cannot be written
├── DeadlineError         no answer in time                           (504)
├── ConfigError           hub.toml cannot be used; holds all problems
└── PluginError           a plugin could not be loaded or used

`Retry` and `Reject` are what an endpoint raises from `deliver`; they are signals to the hub, and
no errors of it. The message of an error says what, where, and what to do next; `code` is stable.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BusyError",
    "ConfigError",
    "ConflictError",
    "DeadlineError",
    "DrainingError",
    "ForbiddenError",
    "HubError",
    "IdReusedError",
    "InvalidError",
    "KeyReusedError",
    "MailboxFullError",
    "MalformedError",
    "NoEndpointError",
    "NotFoundError",
    "NotGivenError",
    "PluginError",
    "RateLimitedError",
    "Reject",
    "Retry",
    "RouteError",
    "StoreUnavailableError",
    "SubjectError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
]


class HubError(Exception):
    """Something the hub refused or could not do."""

    code: ClassVar[str] = "hub_error"

    @property
    def message(self) -> str:
        """What happened, where, and what to do next."""
        return str(self)


class MalformedError(HubError):
    """Input that cannot be parsed."""

    code = "malformed"


class UnauthorizedError(HubError):
    """No credential, or one that is unknown, expired or revoked."""

    code = "unauthorized"


class ForbiddenError(HubError):
    """A credential that is known but too narrow for what was asked."""

    code = "forbidden"


class NotGivenError(ForbiddenError):
    """A task's result or progress, of an endpoint that was never given the task."""

    code = "not_given"

    def __init__(self, *, task_id: str, by: str) -> None:
        self.task_id = task_id
        self.by = by
        super().__init__(
            f"task {task_id[:100]!r} was never given to {by!r}; only who has or had it may say "
            "how it is, as the endpoint that it was given to"
        )


class NotFoundError(HubError):
    """The thing named does not exist."""

    code = "not_found"


class ConflictError(HubError):
    """The thing named is not in a state that allows this."""

    code = "conflict"


class IdReusedError(ConflictError):
    """An envelope id was given before, with another body."""

    code = "id_reused"

    def __init__(self, *, envelope_id: str) -> None:
        self.envelope_id = envelope_id
        super().__init__(
            f"envelope id {envelope_id!r} was used before for another body; "
            "give each message its own id, or none at all"
        )


class TooLargeError(HubError):
    """Input over a size limit.

    Args:
        setting: What sets the limit; None where it is fixed.
    """

    code = "too_large"

    def __init__(
        self, *, what: str, size_bytes: int | None, limit_bytes: int, setting: str | None = None
    ) -> None:
        self.limit_bytes = limit_bytes
        size = "more" if size_bytes is None else f"{size_bytes}"
        more = f", or raise {setting}" if setting else ""
        super().__init__(f"{what} has {size} bytes, the limit is {limit_bytes}; send less{more}")


class InvalidError(HubError):
    """Input that was parsed but is not valid.

    Attributes:
        index: Place of the bad member in a batch, when there was one.
    """

    code = "invalid"
    index: int | None = None


class SubjectError(InvalidError):
    """A subject, pattern or address is not valid."""

    code = "invalid_subject"


class RouteError(InvalidError):
    """A route is not valid."""

    code = "invalid_route"


class KeyReusedError(InvalidError):
    """An idempotency key was given before, with another body."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "this idempotency key was used before for another body; use a new key for a new message"
        )


class RateLimitedError(HubError):
    """Over a rate; may be tried again after `after_s` seconds."""

    code = "rate_limited"

    def __init__(self, *, what: str, after_s: float, setting: str) -> None:
        self.after_s = after_s
        super().__init__(
            f"{what} is over its rate; try again in {after_s:.1f} s, or raise {setting}"
        )


class BusyError(RateLimitedError):
    """Too many under way at once; may be tried again when one has ended."""

    code = "busy"

    def __init__(self, *, what: str, limit: int, setting: str) -> None:
        self.after_s = 1.0
        self.limit = limit
        HubError.__init__(
            self,
            f"{what}: {limit} are under way, which is the limit; "
            f"wait until one has ended, or raise {setting}",
        )


class UnavailableError(HubError):
    """Cannot be done now; the same call may succeed later."""

    code = "unavailable"


class DrainingError(UnavailableError):
    """The hub is stopping and takes nothing new."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("the hub is stopping and takes nothing new; send it again when it is back")


class MailboxFullError(UnavailableError):
    """The only mailbox this envelope would go to is full and refuses more."""

    code = "mailbox_full"

    def __init__(self, *, mailbox: str, limit: int) -> None:
        self.mailbox = mailbox
        self.limit = limit
        super().__init__(
            f"mailbox {mailbox!r} holds {limit} deliveries and refuses more; "
            "try again when its consumer has caught up, or raise its limit"
        )


class NoEndpointError(UnavailableError):
    """A request found nobody to ask."""

    code = "no_endpoint"


class StoreUnavailableError(UnavailableError):
    """The database cannot be written; nothing was acknowledged."""

    code = "store_unavailable"


class DeadlineError(HubError):
    """No answer came before the deadline."""

    code = "deadline"


class ConfigError(HubError):
    """The configuration cannot be used.

    Attributes:
        problems: One line each: where, what, and what to do.
    """

    code = "config"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class PluginError(HubError):
    """A plugin could not be loaded, or did something it may not."""

    code = "plugin"


class Retry(Exception):  # noqa: N818  # a signal, named by the plugin contract
    """Raised from `deliver`: not taken now, try again after `after_s` seconds (None: backoff).

    Attributes:
        counted: Whether this was an attempt; False when the peer has not seen anything of it.
    """

    def __init__(
        self, after_s: float | None = None, reason: str = "retry", *, counted: bool = True
    ) -> None:
        self.after_s = after_s
        self.reason = reason
        self.counted = counted
        super().__init__(reason)


class Reject(Exception):  # noqa: N818  # a signal, named by the plugin contract
    """Raised from `deliver`: will never be taken; the delivery is dead."""

    def __init__(self, reason: str = "rejected") -> None:
        self.reason = reason
        super().__init__(reason)
