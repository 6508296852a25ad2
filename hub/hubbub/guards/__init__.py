"""Guards against too much, and against peers that fail: pure values, time is an argument."""

from hubbub.guards.breaker import Breaker, BreakerRule, BreakerState
from hubbub.guards.bucket import TokenBucket
from hubbub.guards.failed_attempts import (
    MAX_REMEMBERED,
    FailedAttempts,
    PasswordLimits,
    name_of,
)
from hubbub.guards.rules import GuardRule, rule_for

__all__ = [
    "MAX_REMEMBERED",
    "Breaker",
    "BreakerRule",
    "BreakerState",
    "FailedAttempts",
    "GuardRule",
    "PasswordLimits",
    "TokenBucket",
    "name_of",
    "rule_for",
]
