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


def depth_of(text: str) -> int:
    """Return how deeply JSON is nested, one character after the other."""
    depth = deepest = 0
    in_text = escaped = False
    for sign in text:
        if in_text:
            in_text = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            in_text = True
        elif sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


@given(JSON, st.integers(1, 6))
def test_depth_is_measured_without_decoding(value: object, limit: int) -> None:
    """Refused exactly when it is nested deeper than the limit; brackets in texts do not count."""
    padded: list[object] = [value, {"pad": [[[]]] * 70}]
    text = json.dumps(padded)
    data = text.encode()
    if depth_of(text) > limit:
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
