"""What may enter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.errors import MalformedError
from hubbub.intake import check_depth

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\[]{}', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"[{', max_size=3), inner),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    """Return how deeply a value is nested."""
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


@given(JSON, st.integers(1, 6))
def test_depth_is_measured_without_decoding(value: object, limit: int) -> None:
    """Refused exactly when it is nested deeper than the limit; brackets in texts do not count."""
    padded = [value, {"pad": [[]] * 70}]
    data = json.dumps(padded).encode()
    if depth_of(padded) > limit:
        with pytest.raises(MalformedError):
            check_depth(data, limit)
    else:
        check_depth(data, limit)


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_holds_at_its_edge(over: int) -> None:
    """64 is fine, 65 is not."""
    data = b"[" * (64 + over) + b"]" * (64 + over)
    if over:
        with pytest.raises(MalformedError):
            check_depth(data, 64)
    else:
        check_depth(data, 64)
