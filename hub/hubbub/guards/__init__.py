"""Guards against too much, and against peers that fail: pure values, time is an argument."""

from hubbub.guards.breaker import Breaker, BreakerRule, BreakerState
from hubbub.guards.bucket import TokenBucket
from hubbub.guards.rules import GuardRule, rule_for

__all__ = ["Breaker", "BreakerRule", "BreakerState", "GuardRule", "TokenBucket", "rule_for"]
