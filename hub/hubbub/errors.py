"""Every error of the hub, as one family.

HubError
├── MalformedError        cannot be parsed                            (HTTP 400)
│   └── NotJsonError      data of an envelope that says it is something else
├── UnauthorizedError     no credential, or none that is known        (401)
│   └── CredentialEndedError   one that held when this began
├── ForbiddenError        a known credential that may not do this     (403)
│   ├── NameTakenError    a stream name that is another token's
│   └── NotGivenError     a result of a task that its endpoint never had
├── ForeignOriginError    a page of another origin                    (403)
├── UnknownHostError      asked by a name that is not the hub's       (421)
├── NotFoundError         no such thing                               (404)
├── ConflictError         not in this state                           (409)
│   └── IdReusedError     an id given before, with another body
├── TooLargeError         over a size limit                           (413)
├── InvalidError          parsed, but not valid                       (422)
│   ├── SubjectError      a subject, pattern or address is not valid
│   ├── RouteError        a route is not valid
│   └── KeyReusedError    an idempotency key given before, with another body
├── RateLimitedError      over a rate                                 (429)
│   ├── BusyError         too many under way at once
│   └── TooManyFailuresError  too many credentials that were not valid
├── UnavailableError      cannot now, may be tried again              (503)
│   ├── DrainingError     the hub is stopping
│   ├── MailboxFullError  a mailbox with policy `refuse` is full
│   ├── NoEndpointError   a request found nobody
│   └── StoreUnavailableError  the database cannot be written
├── DeadlineError         no answer in time                           (504)
├── UnsafeSettingsError   settings that would leave an adapter open to everybody
├── ConfigError           hub.toml cannot be used; holds all problems
└── PluginError           a plugin could not be loaded or used

`Retry` and `Reject` are what an endpoint raises from `deliver`; they are signals to the hub, and
no errors of it. The message of an error says what, where, and what to do next; `code` is stable.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

__all__ = [
    "BusyError",
    "ConfigError",
    "ConflictError",
    "CredentialEndedError",
    "DeadlineError",
    "DrainingError",
    "ForbiddenError",
    "ForeignOriginError",
    "HubError",
    "IdReusedError",
    "InvalidError",
    "KeyReusedError",
    "MailboxFullError",
    "MalformedError",
    "NameTakenError",
    "NoEndpointError",
    "NotFoundError",
    "NotGivenError",
    "NotJsonError",
    "PluginError",
    "RateLimitedError",
    "Reject",
    "Retry",
    "RouteError",
    "StoreUnavailableError",
    "SubjectError",
    "TooLargeError",
    "TooManyFailuresError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownHostError",
    "UnsafeSettingsError",
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


class NotJsonError(MalformedError):
    """Data of an envelope that is not JSON by its own content type."""

    code = "not_json"

    def __init__(self, *, envelope_id: str, content_type: str) -> None:
        self.content_type = content_type
        super().__init__(
            f"data of envelope {envelope_id!r} is {content_type[:64]!r}, not JSON; "
            "look at content_type before json()"
        )


class UnauthorizedError(HubError):
    """No credential, or one that is unknown, expired or revoked."""

    code = "unauthorized"


class CredentialEndedError(UnauthorizedError):
    """A credential that held when something was begun with it, and does not any more.

    Attributes:
        reason: `revoked`, `expired`, or `removed` from hub.toml.
    """

    code = "credential_ended"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the credential this was begun with was {reason}; come again with another one"
            if reason != "expired"
            else "the credential this was begun with has expired; come again with another one"
        )


class ForbiddenError(HubError):
    """A credential that is known but too narrow for what was asked."""

    code = "forbidden"


class NameTakenError(ForbiddenError):
    """The name of a stream belongs to another token."""

    code = "name_taken"


class ForeignOriginError(HubError):
    """A page of another origin, which no list of origins names."""

    code = "foreign_origin"

    def __init__(self, *, origin: str, setting: str | None = None) -> None:
        self.origin = origin
        who = f"pages of {origin[:200]!r}" if origin else "pages of other sites"
        lists = "hub.origins" if setting is None else f"hub.origins or {setting}"
        super().__init__(
            f"{who} may not call this hub; if they shall, put their origin into {lists}"
        )


class UnknownHostError(HubError):
    """A loopback listener was asked by a name that is not known as one of the hub."""

    code = "unknown_host"

    def __init__(self, *, host: str | None) -> None:
        self.host = host
        asked = "no Host, or by several" if host is None else f"the name {host[:200]!r}"
        super().__init__(
            f"this listener is bound to loopback and was asked by {asked}; use 127.0.0.1 or "
            "localhost, or put the name into hub.hosts"
        )


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


class TooManyFailuresError(RateLimitedError):
    """Too many credentials that were not valid; may be tried again after `after_s` seconds."""

    code = "too_many_failures"

    def __init__(self, *, what: str, after_s: float, setting: str) -> None:
        self.after_s = after_s
        HubError.__init__(
            self,
            f"{what}: too many failures; see that what you send is valid, and try again in "
            f"{math.ceil(after_s)} s; the limit is {setting}",
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


class UnsafeSettingsError(HubError):
    """Settings that would leave an adapter open to everybody; it is not started with them."""

    code = "unsafe_settings"


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


MAX_REASON: Final = 1000
"""Characters of a reason that an endpoint gives; what is beyond is cut off."""


class Retry(Exception):  # noqa: N818  # a signal, named by the plugin contract
    """Raised from `deliver`: not taken now, try again after `after_s` seconds (None: backoff).

    Attributes:
        counted: Whether this was an attempt; False when the peer has not seen anything of it.
        answered: The peer is there and has said so: no failure for its circuit breaker.
    """

    def __init__(
        self,
        after_s: float | None = None,
        reason: str = "retry",
        *,
        counted: bool = True,
        answered: bool = False,
    ) -> None:
        self.after_s = after_s
        self.reason = reason[:MAX_REASON]
        self.counted = counted
        self.answered = answered
        super().__init__(self.reason)


class Reject(Exception):  # noqa: N818  # a signal, named by the plugin contract
    """Raised from `deliver`: will never be taken; the delivery is dead."""

    def __init__(self, reason: str = "rejected") -> None:
        self.reason = reason[:MAX_REASON]
        super().__init__(self.reason)
