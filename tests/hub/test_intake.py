"""What may enter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.envelope import Envelope
from hubbub.errors import InvalidError, MalformedError, TooLargeError
from hubbub.intake import (
    ADDED_BYTES,
    GROWTH,
    Limits,
    check_depth,
    check_envelope,
    check_text,
    is_over,
)
from hubbub.testing import running_hub

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


def checked(data: str) -> None:
    check_envelope(
        Envelope(id="", source="api.test", subject="a.b", type="t", data=data.encode()), Limits()
    )


@pytest.mark.parametrize("number", ["1e309", "-1E+400", "9" * 4301, "1" * 400 + ".5"])
def test_a_number_that_nobody_can_read_is_refused(number: str) -> None:
    """It would be kept as it is, and whoever reads the history could not decode that page."""
    with pytest.raises(MalformedError, match="out of range"):
        checked(f'{{"n": [{number}]}}')


@pytest.mark.parametrize("number", ["1e308", "9" * 4300, "1e-999", "0." + "1" * 5000])
def test_large_and_fine_numbers_are_taken(number: str) -> None:
    """Up to the edge of what can be read."""
    checked(f'{{"n": [{number}]}}')


@pytest.mark.parametrize("text", ["天气\u3000一号", "\U0001f468\u200d\U0001f467", "a\u00a0b", "é"])
def test_texts_that_have_no_control_character(text: str) -> None:
    """An ideographic space, and what joins an emoji, are signs like others."""
    assert check_text("key", text) == text


@pytest.mark.parametrize("sign", ["\0", "\n", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"])
def test_texts_with_a_control_character(sign: str) -> None:
    """What would break a line of a log, or a row of a table, is refused and shown escaped."""
    with pytest.raises(InvalidError, match="has a control character"):
        check_text("key", f"a{sign}b")


@pytest.mark.parametrize(
    ("frame", "limit", "over"),
    [("abcd", 4, False), ("abcde", 4, True), ("éé", 4, False), ("éé", 3, True),
     (b"\xff" * 5, 4, True), ("\ud800", 3, False), ("\ud800", 2, True)],
)  # fmt: skip
def test_frames_count_in_bytes(frame: str | bytes, limit: int, over: bool) -> None:
    """As they came over the wire."""
    assert is_over(frame, limit) is over


def test_the_largest_data_has_a_bound() -> None:
    """What a client sent may grow; what is larger was measured nowhere."""
    limits = Limits(sent_bytes=1000)
    assert limits.data_bytes == 1000 * GROWTH + ADDED_BYTES
    for over in (0, 1):
        data = b'"%b"' % (b"x" * (limits.data_bytes - 2 + over))
        envelope = Envelope(id="", source="api.test", subject="a.b", type="t", data=data)
        if over:
            with pytest.raises(TooLargeError):
                check_envelope(envelope, limits)
        else:
            check_envelope(envelope, limits)


LARGE_FRAMES = """
[hub]
max_body = 1000
limits = { frame = 1000 }
[adapters.kenko]
enabled = true
max_message_bytes = 2000
limits = { frame = 100_000 }
[[routes]]
name = "kept"
match = "kept.>"
to = ["stream.later"]
hold = "1h"
durable = true
"""


@pytest.mark.parametrize(
    ("source", "subject", "durable", "sent_bytes"),
    [
        ("api.test", "a.b", False, 1000),
        ("api.test", "a.b", True, 1000),
        ("kenko.app.x", "a.b", True, 2000),
        ("kenko.app.x", "a.b", False, 100_000),
        ("kenko.app.x", "kept.b", False, 2000),
        ("kenkoo.app", "a.b", False, 1000),
    ],
)
async def test_what_an_adapter_says_and_nobody_stores_may_be_as_large_as_its_frames(
    tmp_path: Path, source: str, subject: str, durable: bool, sent_bytes: int
) -> None:
    """At the limit and one byte over it; what a route stores counts as stored."""
    async with running_hub(tmp_path / "hub", LARGE_FRAMES) as core:
        for over in (0, 1):
            text = "x" * (sent_bytes * GROWTH + ADDED_BYTES - 2 + over)
            envelope = Envelope.new(
                source=source, subject=subject, type="t", data=text, durable=durable
            )
            if over:
                with pytest.raises(TooLargeError, match=r"hub\.max_body"):
                    await core.publish(envelope)
            else:
                await core.publish(envelope)
